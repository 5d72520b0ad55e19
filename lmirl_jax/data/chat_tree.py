"""Puts the limits of `chat_limits` into chat templates: into their trees before they are compiled, and into their filters.

Each item of a loop and each call of a macro is a step, and each value that a filter, a call or a concatenation takes or makes is
measured.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.visitor import NodeTransformer

from lmirl_jax.data.chat_limits import BUDGET, STEPS_OF_A_MACRO, check_filter

# The name of the filter through which loops take their items.
_COUNTED = "0counted"
# Filters that neither write nor copy the items of a list, so that its texts need not be measured.
_SHALLOW = frozenset(
    [
        "attr",
        "batch",
        "count",
        "d",
        "default",
        "dictsort",
        "first",
        "groupby",
        "items",
        "last",
        "length",
        "list",
        "map",
        "max",
        "min",
        "random",
        "reject",
        "rejectattr",
        "reverse",
        "select",
        "selectattr",
        "slice",
        "sort",
        "sum",
        "unique",
    ]
)
# The marks of functions to which Jinja passes something before their value, by the decorator that makes each.
_PASSES = {
    getattr(decorator(lambda: None), "jinja_pass_arg", None): decorator
    for decorator in (jinja2.pass_context, jinja2.pass_eval_context, jinja2.pass_environment)
}


def limit(tree: nodes.Template) -> nodes.Template:
    """Puts steps and measurements into the tree of a template."""
    return _Limits().visit(tree)


class _Limits(NodeTransformer):
    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        # A filter is called at once, a function by way of the sandbox.
        node.iter = nodes.Filter(node.iter, _COUNTED, [], [], None, None, lineno=node.lineno)
        return node

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:
        self.generic_visit(node)
        steps = nodes.Const(STEPS_OF_A_MACRO, lineno=node.lineno)
        node.body.insert(0, nodes.ExprStmt(_call("step", node.lineno, steps), lineno=node.lineno))
        return node

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.Node:
        # The call itself has to stay a call.
        self.generic_visit(node.call)
        node.body = [self.visit(each) for each in node.body]
        return node

    def visit_FilterBlock(self, node: nodes.FilterBlock) -> nodes.Node:
        node.body = [self.visit(each) for each in node.body]
        return node

    def visit_Filter(self, node: nodes.Filter) -> nodes.Node:
        self.generic_visit(node)
        if node.node is not None:
            node.node = _measured(node.node, deep=node.name not in _SHALLOW)
        return _measured(node)

    def visit_Call(self, node: nodes.Call) -> nodes.Node:
        self.generic_visit(node)
        return _measured(node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        node.nodes = [_measured(each, deep=True) for each in node.nodes]
        return _measured(node)

    def visit_Output(self, node: nodes.Output) -> nodes.Node:
        self.generic_visit(node)
        parts = [
            each if isinstance(each, nodes.TemplateData) else _measured(each, deep=True)
            for each in node.nodes
        ]
        node.nodes = parts
        return node


def _measured(node: nodes.Expr, deep: bool = False) -> nodes.Expr:
    if isinstance(node, nodes.Const):
        return node
    arguments = [node, *([nodes.Const(True, lineno=node.lineno)] * deep)]
    return _call("measure", node.lineno, *arguments)


def _call(method: str, line: int, *arguments: nodes.Expr) -> nodes.Call:
    budget = nodes.Name(BUDGET, "load", lineno=line)
    return nodes.Call(
        nodes.Getattr(budget, method, "load", lineno=line), list(arguments), [], None, None, lineno=line
    )


def limited_filters(filters: Mapping[str, Any]) -> dict[str, Any]:
    """The filters of an environment, each of which is judged before it runs where it may make much of little."""
    names = (
        "batch",
        "center",
        "format",
        "indent",
        "join",
        "replace",
        "slice",
        "tojson",
        "truncate",
        "wordwrap",
    )
    return {**filters, _COUNTED: _counted, **{name: _limited(name, filters[name]) for name in names}}


@jinja2.pass_context
def _counted(context: Any, items: Any) -> Iterator[Any]:
    return context.resolve(BUDGET).count(items)


def _limited(name: str, function: Any) -> Any:
    passes = _PASSES.get(getattr(function, "jinja_pass_arg", None))

    def call(*args: Any, **kwargs: Any) -> Any:
        passed, (value, *rest) = (args[:1], args[1:]) if passes else ((), args)
        if name == "join" and not isinstance(value, (str, list, tuple, dict)):
            value = list(value)
        check_filter(name, value, rest, kwargs)
        return function(*passed, value, *rest, **kwargs)

    return call if passes is None else passes(call)
