"""Tools: what a conversation may call, the calls that it makes, and whether a template wrote them down.

They are kept as transformers' templates take them: a tool is `{"type": "function", "function": {name, parameters, …}}`,
a call `{"type": "function", "function": {"name": …, "arguments": {…}}}`, its arguments an object.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trimtab.data.problems import Reason, RowFaultError
from trimtab.data.text_loss import is_within
from trimtab.records import Message


def tools_of(value: object, *, column: str) -> list[dict[str, Any]]:
    """The tools of one cell: a list of schemas, or that as JSON text. Raises `RowFaultError` where one has no name."""
    tools = _parse(value, place=f"'{column}'")
    schemas = tools if isinstance(tools, list) else [tools]
    return [_function(schema, place=f"tool {number} of '{column}'") for number, schema in enumerate(schemas, 1)]


def calls_of(value: object, *, place: str) -> list[dict[str, Any]]:
    """The calls of one message: a list of them, one alone, or either as JSON text; arguments as text are parsed."""
    calls = _parse(value, place=place)
    return [_call(call, place=place) for call in (calls if isinstance(calls, list) else [calls])]


def template_arguments(value: object, *, column: str) -> dict[str, Any]:
    """Variables that a row gives to its template, such as `{"enable_thinking": true}`."""
    arguments = _parse(value, place=f"'{column}'")
    if not isinstance(arguments, dict):
        raise RowFaultError(Reason.UNREADABLE, f"'{column}' is no object of the template's variables")
    return arguments


def first_unwritten(value: object, text: str) -> str | None:
    """The first name or value of a call, a tool or a piece of reasoning that a template's text lacks; None if none."""
    return next((leaf for leaf in _leaves(value) if leaf.strip() and not is_written(leaf, text)), None)


def refuse_unwritten_tools(tools: Sequence[Mapping[str, Any]], text: str) -> None:
    """Raises `RowFaultError` for a tool that the template does not name."""
    if name := first_unwritten([tool["function"]["name"] for tool in tools], text):
        raise RowFaultError(Reason.TEXT_LOST, f"the template leaves out the tool {name!r}")


def refuse_unwritten(message: Message, text: str, *, place: str) -> None:
    """A call, or reasoning, that the template does not write would be lost without a word. Of a prompt the reasoning
    may be: templates leave that of earlier turns out."""
    extras = json.loads(message.extras or "{}")
    calls = [call["function"] for call in extras.get("tool_calls", [])]
    if leaf := first_unwritten(calls, text):
        raise RowFaultError(Reason.TEXT_LOST, f"the template leaves out {leaf!r} of the tool_calls of {place}")
    if place == "the response" and first_unwritten(extras.get("reasoning_content"), text):
        raise RowFaultError(Reason.TEXT_LOST, f"the template leaves out the reasoning_content of {place}")


def is_written(content: str, text: str) -> bool:
    """Whether a template put a text into what it renders: as it stands, or as JSON."""
    return is_within(content, text) or any(
        json.dumps(content, ensure_ascii=ascii_only)[1:-1] in text for ascii_only in (False, True)
    )


def _leaves(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        for entry in value.values():
            yield from _leaves(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from _leaves(entry)
    elif isinstance(value, str):
        yield value
    elif value is not None and not isinstance(value, bool):
        yield json.dumps(value)


def _parse(value: object, *, place: str) -> Any:
    """A cell without the nulls that columns of nested records have in every row; JSON text is parsed."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise RowFaultError(Reason.UNREADABLE, f"{place} is text that is not JSON") from None
    return _without_nulls(value)


def _without_nulls(value: object) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nulls(entry) for key, entry in value.items() if entry is not None}
    return [_without_nulls(entry) for entry in value] if isinstance(value, list | tuple) else value


def _function(record: object, *, place: str) -> dict[str, Any]:
    """`{"type": "function", "function": …}` around a bare function, too."""
    outer = record if isinstance(record, dict) else {}
    function = outer["function"] if isinstance(outer.get("function"), dict) else outer
    if not isinstance(function.get("name"), str) or not function["name"].strip():
        raise RowFaultError(Reason.UNREADABLE, f"{place} has no name")
    return {"type": "function", "function": function} if function is outer else {**outer, "type": "function"}


def _call(record: object, *, place: str) -> dict[str, Any]:
    call = _function(record, place=f"a call in {place}")
    arguments = call["function"].get("arguments", {})
    if isinstance(arguments, str):
        arguments = _parse(arguments or "{}", place=f"the arguments of {call['function']['name']!r} in {place}")
    return {**call, "function": {**call["function"], "arguments": arguments}}
