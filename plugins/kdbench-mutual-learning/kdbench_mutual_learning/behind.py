"""The part of a network behind one of its modules, cut out by torch.fx."""

from torch import fx, nn


class _Around(fx.Tracer):
    """Traces what the module at `path` lies in; everything else stays whole."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:  # noqa: ARG002
        return not self._path.startswith(f"{module_qualified_name}.")


def behind(network: nn.Module, path: str) -> nn.Module:
    """From the output of the module at `path` to the network's output.

    It has the network's own modules. Raises ValueError where the network cannot be
    traced, does not call that module once, or needs more than its output.
    """
    try:
        whole = _Around(path).trace(network)
    except Exception as error:  # whatever a model's own code does with a stand-in
        why = " ".join(str(error).split())
        raise ValueError(f"its forward pass cannot be traced: {why}") from error
    calls = [n for n in whole.nodes if n.op == "call_module" and n.target == path]
    if len(calls) != 1:
        raise ValueError(f"its forward pass calls {path} {len(calls)} times, not once")
    needed = _ancestors(whole, calls[0])
    part = fx.Graph()
    copies = {calls[0]: part.placeholder("features")}
    for node in whole.nodes:
        if node in needed and node.op == "placeholder":
            raise ValueError(f"something in its forward pass goes past {path}")
        if node in needed:
            copies[node] = part.node_copy(node, copies.__getitem__)
    return fx.GraphModule(network, part)


def _ancestors(graph: fx.Graph, stop: fx.Node) -> set[fx.Node]:
    """The nodes that the output is made of, but for `stop` and what only that needs."""
    left = [node for node in graph.nodes if node.op == "output"]
    found: set[fx.Node] = set()
    while left:
        node = left.pop()
        if node is not stop and node not in found:
            found.add(node)
            left += node.all_input_nodes
    return found
