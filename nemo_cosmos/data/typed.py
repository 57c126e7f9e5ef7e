"""The typed readers under the name they had before models read with them too."""

from nemo_cosmos.typed import from_json, parse_json, plain_name

__all__ = ["from_json", "parse_json", "plain_name"]
