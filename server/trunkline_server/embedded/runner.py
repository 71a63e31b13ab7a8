"""The process that holds the model: `python -m trunkline_server.embedded.runner`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading


def main() -> None:
    options = _options()
    # Read before the import: OpenMP threads that spin starve their neighbours on a small machine.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    key = os.environ.pop("TRUNKLINE_LOCAL_KEY")
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))

    import xllamacpp  # after the environment is set

    params = xllamacpp.CommonParams()
    params.model.path = options.model
    params.model_alias = {options.name}
    params.n_ctx = options.context
    params.n_parallel = options.slots
    params.kv_unified = True
    params.cpuparams.n_threads = options.threads
    params.cpuparams_batch.n_threads = max(options.threads, os.cpu_count() or 1)
    params.verbosity = 0
    params.ui = False
    params.offline = True
    params.embedding = True
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    params.hostnames = [options.socket]
    params.api_keys = [key]
    # A small model babbles and repeats itself at the usual settings; a request's own parameters win.
    params.sampling.temp = 0.2
    params.sampling.top_p = 0.9
    params.sampling.penalty_repeat = 1.1
    params.n_predict = 512
    server = xllamacpp.Server(params)
    threading.Event().wait()
    del server


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--socket", required=True)
    parser.add_argument("--context", type=int, required=True)
    parser.add_argument("--slots", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    return parser.parse_args()


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main()
