"""tiled: a catalog whose runs are followed while they are measured."""

from pydantic import BaseModel, ConfigDict, Field


class TiledSource(BaseModel):
    """Runs as bluesky's `TiledWriter` writes them, followed by websocket."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    catalog: str = Field(
        min_length=1,
        description="URI of the catalog on a tiled server with a streaming cache, or a tiled"
        " profile of one; the API key is taken from TILED_API_KEY",
    )
    since: float = Field(
        default=86_400.0,
        ge=0,
        description="s before its own start from which on the daemon takes up runs that are still"
        " open in the catalog, from their first document; 0: none",
    )
