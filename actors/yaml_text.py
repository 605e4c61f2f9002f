"""YAML of users: read with a safe loader, without repeated keys, and within a limit."""

import re
from typing import Any

import yaml

MAX_NODES = 100_000  # of a file; some lines of aliases to aliases can stand for billions


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-3 is a number, and a repeated key is an error. PyYAML would silently drop its first value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set[str]()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # no key of a config, which is said later
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"key {key.value!r} occurs twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def parse_yaml(text: str) -> object:
    """The value of a YAML text. Raises YAMLError or ValueError."""
    try:
        loader = _Loader(text)  # a safe one
        node = loader.get_single_node()
        if (num_nodes := _num_nodes(node, {})) > MAX_NODES:
            raise ValueError(f"its aliases stand for {num_nodes:.0e} values, and a file may hold {MAX_NODES:.0e}")
        return node and loader.construct_document(node)
    except RecursionError:
        raise ValueError("nested too deeply, or in itself") from None


def _num_nodes(node: yaml.Node | None, known: dict[int, int]) -> int:
    """The number of nodes below ``node``, with every alias in place of its anchor. ``known``: by id."""
    if isinstance(node, yaml.ScalarNode) or node is None:
        return 1
    if id(node) not in known:
        below = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
        known[id(node)] = 1 + sum(_num_nodes(part, known) for part in below)
    return known[id(node)]
