"""`Accept`, read in one way by the relay and the read API."""

from functools import lru_cache


@lru_cache(maxsize=1024)
def accepts(header: str, media_type: str) -> bool:
    """Whether an `Accept` header allows a media type (RFC 9110, section 12.5.1); an empty one allows every type.

    The most specific range decides: `application/json;q=0, */*` does not allow `application/json`.
    """
    wanted = media_type.partition(";")[0]
    quality: dict[str, float] = {}
    for part in header.lower().split(","):
        media, *parameters = (piece.strip() for piece in part.split(";"))
        weights = [one.removeprefix("q=") for one in parameters if one.startswith("q=")]
        if media:
            quality[media] = float(weights[0]) if weights and weights[0].replace(".", "", 1).isdecimal() else 1.0
    ranges = (wanted, f"{wanted.partition('/')[0]}/*", "*/*")
    return not quality or quality.get(next((one for one in ranges if one in quality), ""), 0.0) > 0
