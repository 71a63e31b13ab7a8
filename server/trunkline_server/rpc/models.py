"""ModelService: wire in, catalog, wire out."""

from __future__ import annotations

import hashlib

from trunkline.v1 import model_service_pb2 as pb
from trunkline_server.call import Call
from trunkline_server.catalog import Catalog
from trunkline_server.errors import InvalidRequest, Violation
from trunkline_server.rpc import validation
from trunkline_server.rpc.boundary import Boundary
from trunkline_server.rpc.methods import Methods, accept

DEFAULT_PAGE = 100


class ModelMethods:
    """Serves trunkline.v1.ModelService."""

    NAME = "trunkline.v1.ModelService"

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def methods(self, boundary: Boundary) -> Methods:
        return {
            "ListModels": boundary.unary("ListModels", pb.ListModelsRequest, self.list),
            "GetModel": boundary.unary("GetModel", pb.GetModelRequest, self.get),
        }

    async def list(self, request: pb.ListModelsRequest, call: Call) -> pb.ListModelsResponse:
        accept(call, validation.of_list_models(request), request)
        after = _after(request)
        models, unlisted = await self._catalog.models(call, request.provider)
        # The token names the last model of the page before, so that models that come and go shift nothing.
        rest = [model for model in models if model.name > after]
        size = request.page_size or DEFAULT_PAGE
        page = rest[:size]
        token = _token(request.provider, page[-1].name) if len(rest) > size else ""
        return pb.ListModelsResponse(models=page, next_page_token=token, unlisted_providers=unlisted)

    async def get(self, request: pb.GetModelRequest, call: Call) -> pb.GetModelResponse:
        accept(call, validation.of_get_model(request), request)
        return pb.GetModelResponse(model=await self._catalog.model(call, request.name))


def _token(provider: str, last: str) -> str:
    return hashlib.sha256(f"models\0{provider}".encode()).hexdigest()[:8] + last


def _after(request: pb.ListModelsRequest) -> str:
    token = request.page_token
    if not token:
        return ""
    if token[:8] != _token(request.provider, "")[:8]:
        text = "it does not belong to this list: send the next_page_token of an answer to the same request"
        raise InvalidRequest(f"page_token: {text}", violations=[Violation("page_token", text)])
    return token[8:]
