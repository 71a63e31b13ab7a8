"""A rate limit says how long to wait: `python examples/python/rate_limit.py`.

The gateway waits by itself if the deadline allows; here it does not.
"""

import os
import time
import uuid

from trunkline import Client, RateLimited, text_of


def main() -> None:
    print("# rate_limit")
    model = os.environ.get("TRUNKLINE_MODEL", "fake/rate-limit")
    person = uuid.uuid4().hex  # the fake model limits each person once
    with Client() as client:
        while True:
            try:
                print(text_of(client.complete("Try again.", model=model, end_user_id=person, timeout=2)))
                return
            except RateLimited as error:
                if error.retry_after is None:
                    raise
                print(f"{error.reason} retry after {seconds(error.retry_after)} s")
                time.sleep(error.retry_after)


def seconds(delay: float) -> str:
    """Up to three decimals, and no zeros at the end."""
    return f"{delay:.3f}".rstrip("0").rstrip(".")


if __name__ == "__main__":
    main()
