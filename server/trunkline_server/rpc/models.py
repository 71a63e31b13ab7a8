"""ModelService: wire in, catalog, wire out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

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
            "ListModels": boundary.unary("ListModels", pb.ListModelsRequest, self.list, recorded=False),
            "GetModel": boundary.unary("GetModel", pb.GetModelRequest, self.get, recorded=False),
        }

    async def list(self, request: pb.ListModelsRequest, call: Call) -> pb.ListModelsResponse:
        accept(call, validation.of_list_models(request), request)
        models, unlisted = await self._catalog.models(call, request.provider)
        begin = _position(request, models)
        end = begin + (request.page_size or DEFAULT_PAGE)
        token = _token(request.provider, models[end - 1].name) if end < len(models) else ""
        return pb.ListModelsResponse(models=models[begin:end], next_page_token=token, unlisted_providers=unlisted)

    async def get(self, request: pb.GetModelRequest, call: Call) -> pb.GetModelResponse:
        accept(call, validation.of_get_model(request), request)
        return pb.GetModelResponse(model=await self._catalog.model(call, request.name))


def _token(provider: str, last: str) -> str:
    return hashlib.sha256(f"models\0{provider}".encode()).hexdigest()[:8] + last


def _position(request: pb.ListModelsRequest, models: Sequence[pb.Model]) -> int:
    """Where the page begins: after the model that the token names, so that models that come and go shift nothing."""
    token = request.page_token
    if not token:
        return 0
    text = "it does not belong to this list: send the next_page_token of an answer to the same request"
    if token[:8] == _token(request.provider, "")[:8]:
        last = next((index for index, model in enumerate(models) if model.name == token[8:]), None)
        if last is not None:
            return last + 1
        text = "the list has changed meanwhile: begin again without a token"
    raise InvalidRequest(f"page_token: {text}", violations=[Violation("page_token", text)])
