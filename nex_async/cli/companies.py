"""The companies of the demo: what the package `pytickersymbols` ships, one row for each company."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from pytickersymbols import PyTickerSymbols

__all__ = ["Listed", "load"]

_HOST = re.compile(r"(?:https?://)?(?:www\.)?([a-z0-9][a-z0-9-]*(?:\.[a-z0-9][a-z0-9-]*)*\.[a-z]{2,})(?:[/:?#].*)?\Z")
_COUNT = re.compile(r"\d{1,3}(?:,\d{3})+|\d+")
_PERSON = re.compile(r"\s*([A-Z][\w.'-]+(?: [\w.'-]+){1,3}?)\s*\(")


@dataclass
class Listed:
    """A listed company; `indices` are those it belongs to, `leader` is the first of its key people."""

    ticker: str
    attributes: dict[str, Any]
    leader: str | None = None
    indices: list[str] = field(default_factory=list)


def load(indices: tuple[str, ...]) -> list[Listed]:
    """Return every company once: rows with the same website or ticker are one company."""
    source = PyTickerSymbols()
    members = {name: {_ticker(stock) for stock in source.get_stocks_by_index(name)} for name in indices}
    companies: dict[str, Listed] = {}
    tickers: set[str] = set()
    for stock in source.get_all_stocks():
        ticker = _ticker(stock)
        domain = _domain(stock)
        if ticker in tickers or (domain or ticker) in companies:
            continue
        tickers.add(ticker)
        listed = [name for name, inside in members.items() if ticker in inside]
        companies[domain or ticker] = Listed(ticker, _attributes(stock, ticker, domain), _leader(stock), listed)
    return list(companies.values())


def _ticker(stock: dict[str, Any]) -> str:
    return str(stock.get("symbol") or next(iter(stock.get("isins") or ()), None) or stock["name"])


def _details(stock: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in (stock.get("metadata") or {}).items()}


def _domain(stock: dict[str, Any]) -> str | None:
    found = _HOST.match(_details(stock).get("website", "").strip().lower())
    return found.group(1) if found else None


def _attributes(stock: dict[str, Any], ticker: str, domain: str | None) -> dict[str, Any]:
    details = _details(stock)
    employees = _COUNT.search(details.get("employees", ""))
    values = {
        "name": stock["name"],
        "ticker": ticker,
        "domains": [domain] if domain else None,
        "country": stock.get("country"),
        "industries": stock.get("industries") or None,
        "headquarters": details.get("headquarters"),
        "employees": int(employees.group().replace(",", "")) if employees else None,
        "products": details.get("products"),
    }
    return {slug: value for slug, value in values.items() if value not in (None, "")}


def _leader(stock: dict[str, Any]) -> str | None:
    found = _PERSON.match(_details(stock).get("key_people", ""))
    return found.group(1) if found else None
