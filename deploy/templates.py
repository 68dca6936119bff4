"""The CloudFormation templates of this package: read as dictionaries, written as CloudFormation takes them."""

from __future__ import annotations

import copy
import functools
import json
from importlib import resources
from typing import Any, Literal, TypeAlias

import yaml

TemplateName: TypeAlias = Literal["shared", "lambda", "ec2"]
Template: TypeAlias = dict[str, Any]

FILES: dict[TemplateName, str] = {
    "shared": "shared/shared.yaml",
    "lambda": "lambda_apigw/serverless.yaml",
    "ec2": "ec2_cluster/cluster.yaml",
}
MAX_BODY_BYTES = 51_200
"""Of a template that is sent with the request (CloudFormation quotas); a larger one would have to go through S3."""


_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc]  # the library has no types
    """YAML 1.1 with CloudFormation's short functions. Two keys of one name are an error, and a date stays the text that it is."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [self.construct_object(key, deep=deep) for key, _ in node.value]
        doubled = sorted({str(name) for name in names if names.count(name) > 1})
        if doubled:
            raise yaml.constructor.ConstructorError(None, None, f"{', '.join(doubled)} stands twice", node.start_mark)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return mapping


def _function(loader: _Loader, tag: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
        if tag == "GetAtt":
            value = value.split(".", 1)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        assert isinstance(node, yaml.MappingNode)
        value = loader.construct_mapping(node, deep=True)
    return {tag if tag in ("Ref", "Condition") else f"Fn::{tag}": value}


_Loader.add_multi_constructor("!", _function)
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def parse(text: str) -> Template:
    """A template from its YAML."""
    template: Template = yaml.load(text, _Loader)  # noqa: S506  a SafeLoader
    return template


def load(name: TemplateName) -> Template:
    """One of ours; the caller may change it."""
    return copy.deepcopy(_load(name))


@functools.cache
def _load(name: TemplateName) -> Template:
    return parse(resources.files("deploy").joinpath(FILES[name]).read_text())


def body(template: Template) -> str:
    """As it is sent: JSON without a space, because what is sent may not be long."""
    return json.dumps(template, separators=(",", ":"))


def of_type(template: Template, kind: str) -> dict[str, Any]:
    """The resources of a type by their logical ids."""
    return {name: each for name, each in template["Resources"].items() if each["Type"] == kind}
