"""The tools of docs/tutorial.md: what a pizza costs, and a book of orders."""

import itertools

from arivox.tools import CallInfo, ToolError, tool

EUROS = {"Margherita": 8, "Funghi": 9, "Diavola": 10}
SOLD_OUT = {"Diavola"}
ORDERS: dict[int, dict[str, str]] = {}
_NUMBERS = itertools.count(1)


@tool(finds=["price"])
def price_order(call: CallInfo) -> dict[str, int]:
    """Say what the order costs."""
    pizza = call.known["pizza"]
    if pizza in SOLD_OUT:
        raise ToolError(f'{pizza} is sold out. Say: "I am sorry, {pizza} is sold out. A Funghi instead?"')
    price = EUROS[pizza] + (3 if call.known["size"] == "large" else 0)
    total = price * int(call.known.get("count", "1"))
    call.remember(price=str(total))
    return {"price": total}


@tool(finds=["order", "minutes"], timeout_s=5, say="One moment, I am placing your order.")
def place_order(call: CallInfo) -> dict[str, int]:
    """Order the pizza."""
    number = next(_NUMBERS)
    ORDERS[number] = dict(call.known)
    call.remember(order=str(number), minutes="30")
    return {"order": number}
