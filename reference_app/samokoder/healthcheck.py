"""Ask one URL whether the part is healthy: `python -m samokoder.healthcheck http://127.0.0.1:8000/health`.

For container health checks of images without curl. Standard library only: it starts every few seconds.
"""

import sys
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

TIMEOUT_SECONDS = 3.0


def main(arguments: list[str]) -> int:
    """Exit status: 0 for an answer of 200, 1 for any other answer or none, 2 for a wrong call."""
    url = urlsplit(arguments[0]) if len(arguments) == 1 else None
    if url is None or url.scheme != "http" or not url.hostname:
        print("usage: python -m samokoder.healthcheck http://HOST:PORT/PATH")
        return 2
    connection = HTTPConnection(url.hostname, url.port or 80, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", url.path or "/")
        answer = connection.getresponse()
        print(answer.status, answer.read(500).decode("utf-8", "replace"))
    except (OSError, HTTPException) as error:
        print(f"no answer: {type(error).__name__}: {error}")
        return 1
    finally:
        connection.close()
    return 0 if answer.status == 200 else 1  # noqa: PLR2004 - http.HTTPStatus would cost 10 ms at each start


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
