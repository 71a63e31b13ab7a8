"""EmbeddingService: wire in, embedder, wire out."""

from __future__ import annotations

from trunkline.v1 import embedding_service_pb2 as pb
from trunkline_server.admission import Gate
from trunkline_server.call import Call
from trunkline_server.embedder import Embedder
from trunkline_server.rpc import validation
from trunkline_server.rpc.boundary import Boundary
from trunkline_server.rpc.methods import Methods, accept
from trunkline_server.rpc.runs import Runs


class EmbeddingMethods:
    """Serves trunkline.v1.EmbeddingService."""

    NAME = "trunkline.v1.EmbeddingService"

    def __init__(self, embedder: Embedder, gate: Gate, runs: Runs) -> None:
        """`gate`: the server's."""
        self._embedder = embedder
        self._runs = runs
        self._gate = gate

    def methods(self, boundary: Boundary) -> Methods:
        return {"CreateEmbeddings": boundary.unary("CreateEmbeddings", pb.CreateEmbeddingsRequest, self.create)}

    async def create(self, request: pb.CreateEmbeddingsRequest, call: Call) -> pb.CreateEmbeddingsResponse | bytes:
        accept(call, validation.of_embeddings(request), request)

        async def embed() -> pb.CreateEmbeddingsResponse:
            async with self._gate.place(call):
                return await self._embedder.embed(call, request.spec, request.options)

        if self._runs.shares(request.request_id):
            return await self._runs.answer(call, request, embed)
        return await embed()
