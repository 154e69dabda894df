"""Python functions as tools: what the AI is told is made of their signatures."""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import re
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import ModuleType, UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin, get_type_hints

import msgspec

from arivox.conversation.tools.tool import OwnTool
from arivox.errors import SettingsError
from arivox.tools import MARK, CallInfo, Declaration

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


def load_file(path: Path) -> dict[str, OwnTool]:
    """Run a file of Python code and return its tools. Raises SettingsError that names what is wrong."""
    spec = importlib.util.spec_from_file_location(f"arivox_tools_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise SettingsError("TOOLS_FILE", f"{path} is not a file of Python code")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # annotations are looked up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise SettingsError("TOOLS_FILE", f"{path} failed: {type(error).__name__}: {error}") from error
    found = of_module(module)
    if not found:
        raise SettingsError("TOOLS_FILE", f"{path} has no tool", "Mark functions with @tool of arivox.tools.")
    return found


def of_module(module: ModuleType) -> dict[str, OwnTool]:
    """Return the tools of a module by name. Raises SettingsError."""
    found: dict[str, OwnTool] = {}
    # A function may have two names; other objects may do anything when they are asked for an attribute.
    functions = dict.fromkeys(filter(inspect.isfunction, vars(module).values()))
    for function in functions:
        if isinstance(getattr(function, MARK, None), Declaration):
            one = of_function(function)
            if one.name in found:
                raise SettingsError("TOOLS_FILE", f"there are two tools {one.name!r}")
            found[one.name] = one
    return found


def of_function(function: Callable[..., Any]) -> OwnTool:
    """Return the tool of a decorated function. Raises SettingsError if an AI could not be told of it."""
    name = function.__name__
    declared: Declaration = getattr(function, MARK)

    def fault(problem: str) -> SettingsError:
        return SettingsError("TOOLS_FILE", f"tool {name!r} {problem}")

    if not _NAME.fullmatch(name):
        raise fault("has a name that an AI cannot call: letters of ASCII, digits and _, at most 64")
    description = inspect.cleandoc(function.__doc__ or "").strip()
    if not description:
        raise fault("has no docstring: the AI would not know what it is for")
    try:
        hints = get_type_hints(function, include_extras=True)
    except Exception as error:  # whatever an annotation raises
        raise fault(f"has type hints that cannot be read: {error}") from error
    takes_call: str | None = None
    fields: list[Any] = []
    properties: dict[str, Any] = {}
    required: list[str] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise fault(f"has a parameter that cannot be named: {parameter}")
        if parameter.name not in hints:
            raise fault(f"has no type hint for {parameter.name!r}")
        hint = _described(hints[parameter.name])
        if hint is CallInfo:
            takes_call = parameter.name
            continue
        try:
            schema = msgspec.json.schema(hint)
        except (TypeError, ValueError) as error:
            raise fault(f"cannot take {parameter.name!r}: {error}") from error
        if "$defs" in schema or "$ref" in schema:
            raise fault(f"cannot take {parameter.name!r}: an AI fills in texts, numbers and lists of them")
        properties[parameter.name] = schema
        if parameter.default is parameter.empty:
            required.append(parameter.name)
            fields.append((parameter.name, hint))
        else:
            fields.append((parameter.name, hint, parameter.default))
    try:
        arguments = msgspec.defstruct(name, fields, forbid_unknown_fields=True, kw_only=True)
    except (TypeError, ValueError) as error:
        raise fault(f"cannot be called: {error}") from error

    def read(values: Mapping[str, Any]) -> dict[str, Any]:
        try:
            # Not strict: models write numbers as text.
            taken = msgspec.convert(dict(values), arguments, strict=False)
        except msgspec.ValidationError as error:
            raise ValueError(str(error)) from None
        return {name: getattr(taken, name) for name in properties}

    async def work(call: CallInfo, values: dict[str, Any]) -> Any:
        given = values if takes_call is None else {**values, takes_call: call}
        try:
            if inspect.iscoroutinefunction(function):
                return await function(**given)
            result = await _in_thread(function, given)
            return await result if inspect.isawaitable(result) else result
        except (SystemExit, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise
            # It must neither end the service nor pass for a tool that was broken off.
            raise RuntimeError(f"it raised {type(error).__name__}") from error

    parameters = {"type": "object", "properties": properties, "required": required}
    return OwnTool(
        name, description, parameters, read, work, declared.timeout_s, declared.say, declared.finds
    )


async def _in_thread(function: Callable[..., Any], given: Mapping[str, Any]) -> Any:
    """Run a function in a thread of its own, which does not keep the service from ending.

    A shared pool would be full as soon as a few tools hang, and the look-up of names with it.
    """
    loop = asyncio.get_running_loop()
    # With the failure as a result: a future takes no StopIteration.
    future: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()

    def settle(result: Any, failure: BaseException | None) -> None:
        if not future.done():  # else it was given up
            future.set_result((result, failure))

    def run() -> None:
        result, failure = None, None
        try:
            result = function(**given)
        except BaseException as error:  # noqa: BLE001 - raised again where it is awaited
            failure = error
        with suppress(RuntimeError):  # the service has ended meanwhile
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, name=f"arivox-tool-{function.__name__}", daemon=True).start()
    result, failure = await future
    if failure is not None:
        raise failure
    return result


def _described(hint: Any) -> Any:
    """Return a hint in which a text beside the type is its description."""
    if get_origin(hint) in (Union, UnionType):
        return Union[tuple(map(_described, get_args(hint)))]  # noqa: UP007 - it is made at run time
    if get_origin(hint) is not Annotated:
        return hint
    kind, *more = get_args(hint)
    for note in more:
        kind = Annotated[kind, msgspec.Meta(description=note) if isinstance(note, str) else note]
    return kind
