"""An Open DART for tests, over loopback: real field names, invented companies; what it was asked, and faults on request."""

from __future__ import annotations

import io
import json
import threading
import time
import zipfile
from collections import defaultdict, deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

KEY = "0123456789abcdef0123456789abcdef01234567"
OK = {"status": "000", "message": "정상"}
NO_DATA = {"status": "013", "message": "조회된 데이타가 없습니다."}
MESSAGES = {
    "010": "등록되지 않은 키입니다.",
    "011": "사용할 수 없는 키입니다.",
    "020": "요청 제한을 초과하였습니다.",
    "100": "필드의 부적절한 값입니다.",
    "800": "시스템 점검으로 인한 서비스가 중지 중입니다.",
    "900": "정의되지 않은 오류가 발생하였습니다.",
    "901": "사용자 계정의 개인정보 보유기간이 만료되었습니다.",
}
HTML = (200, "text/html", b"<html><body>\xec\x84\x9c\xeb\xb9\x84\xec\x8a\xa4 \xec\xa0\x90\xea\xb2\x80</body></html>")
HANG, DROP, CUT = "hang", "drop", "cut"


def says(status: str) -> tuple[int, str, bytes]:
    """A refusal, as it comes: HTTP 200."""
    return 200, "application/json", json.dumps({"status": status, "message": MESSAGES[status]}).encode()


class FakeDart:
    """The register. Use it in a `with`.

    filings: rows of list.json; statements: {(corp_code, bsns_year, reprt_code, fs_div): rows}; shares: {(corp_code, bsns_year,
    reprt_code): rows}; companies: {corp_code: reply}; listed: (corp_code, name, stock_code) of corpCode.xml.
    faults: {name of the API: answers to give first}; asked: (name, parameters without the key), in order.
    """

    def __init__(self, *, quota: int = 10**9) -> None:
        self.filings: list[dict[str, Any]] = []
        self.statements: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        self.shares: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        self.companies: dict[str, dict[str, Any]] = {}
        self.listed: list[tuple[str, str, str]] = []
        self.faults: defaultdict[str, deque[Any]] = defaultdict(deque)
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.keys: set[str] = set()
        self.quota = quota
        self._lock = threading.Lock()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # else a body waits 40 ms for its headers to be acknowledged

            def do_GET(self) -> None:
                fake.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> FakeDart:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def names(self) -> list[str]:
        """The APIs that were asked, in order."""
        return [name for name, _ in self.asked]

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(request.path)
        params = dict(parse_qsl(parts.query))
        name = parts.path.removeprefix("/api/")
        with self._lock:
            self.keys.add(params.pop("crtfc_key", ""))
            self.asked.append((name, params))
            fault = self.faults[name].popleft() if self.faults[name] else None
            spent = len(self.asked) > self.quota
        if fault == HANG:
            time.sleep(1.0)
            fault = DROP
        if fault == DROP:
            request.close_connection = True
            return
        status, kind, content = (
            fault if isinstance(fault, tuple) else says("020") if spent else self._serve(name, params)
        )
        request.send_response(status)
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content[: len(content) // 2] if fault == CUT else content)
        request.close_connection = fault == CUT

    def _serve(self, name: str, params: dict[str, str]) -> tuple[int, str, bytes]:
        if name == "corpCode.xml":
            return 200, "application/x-msdownload", self.archive()
        served = {
            "list.json": self._list,
            "company.json": lambda asked: self.companies.get(asked["corp_code"]) or NO_DATA,
            "fnlttSinglAcntAll.json": lambda asked: self._rows(
                self.statements, asked, "corp_code", "bsns_year", "reprt_code", "fs_div"
            ),
            "stockTotqySttus.json": lambda asked: self._rows(
                self.shares, asked, "corp_code", "bsns_year", "reprt_code"
            ),
        }[name]
        return 200, "application/json", json.dumps(served(params), ensure_ascii=False).encode()

    def _rows(self, table: dict[tuple[str, ...], list[Any]], asked: dict[str, str], *fields: str) -> dict[str, Any]:
        rows = table.get(tuple(asked[field] for field in fields))
        return OK | {"list": rows} if rows else NO_DATA

    def _list(self, asked: dict[str, str]) -> dict[str, Any]:
        found = [
            row for row in self.filings
            if asked["bgn_de"] <= row["rcept_dt"] <= asked["end_de"]
            and asked.get("corp_code", row["corp_code"]) == row["corp_code"]
        ]  # fmt: skip
        found.sort(key=lambda row: row["rcept_no"], reverse=asked["sort_mth"] == "desc")
        number, size = int(asked["page_no"]), int(asked["page_count"])
        page = found[(number - 1) * size : number * size]
        if not page:
            return NO_DATA
        counts = {
            "page_no": number,
            "page_count": size,
            "total_count": len(found),
            "total_page": -(-len(found) // size),
        }
        return OK | counts | {"list": page}

    def archive(self) -> bytes:
        """The zipped list of companies; one that is not listed has a blank stock code, as the register writes it."""
        companies = "".join(
            f"<list><corp_code>{corp}</corp_code><corp_name>{name}</corp_name><stock_code>{stock or ' '}</stock_code>"
            "<modify_date>20240102</modify_date></list>"
            for corp, name, stock in self.listed
        )
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("CORPCODE.xml", f'<?xml version="1.0" encoding="UTF-8"?><result>{companies}</result>')
        return content.getvalue()

    # What a company files.

    def file(
        self, corp: str, stock: str, name: str, rcept_no: str, *, year: int, quarter: int, corrected: bool = False
    ) -> None:
        """Put a report of a fiscal year that ends in December on the list."""
        self.companies.setdefault(corp, OK | {"corp_code": corp, "stock_code": stock, "acc_mt": "12"})
        title = ("분기보고서", "반기보고서", "분기보고서", "사업보고서")[quarter - 1]
        self.filings.append(
            {
                "corp_code": corp, "corp_name": name, "stock_code": stock, "corp_cls": "K",
                "report_nm": f"{'[기재정정]' * corrected}{title} ({year}.{quarter * 3:02})", "rcept_no": rcept_no,
                "flr_nm": name, "rcept_dt": rcept_no[:8], "rm": "",
            }
        )  # fmt: skip

    def tell(
        self, corp: str, rcept_no: str, *, year: int, quarter: int, income: int, to_date: int | None = None,
        equity: int = 1_000_000, shares: int = 1_000, fs_div: str = "CFS",
    ) -> None:  # fmt: skip
        """Give a report's statements and share counts: the newest told of a period are what the register has."""
        reprt_code = ("11013", "11012", "11014", "11011")[quarter - 1]
        base = {
            "rcept_no": rcept_no,
            "reprt_code": reprt_code,
            "bsns_year": str(year),
            "corp_code": corp,
            "currency": "KRW",
        }
        added = "" if to_date is None else f"{to_date:,}"
        accounts = [
            ("BS", "ifrs-full_Equity", "자본총계", f"{equity:,}", ""),
            ("IS", "ifrs-full_Revenue", "매출액", f"{10 * income:,}", ""),
            ("IS", "ifrs-full_ProfitLoss", "당기순이익", f"{income:,}", added),
        ]
        self.statements[corp, str(year), reprt_code, fs_div] = [
            base
            | {"sj_div": sj, "account_id": own, "account_nm": name, "ord": str(n)}
            | {"thstrm_amount": now, "thstrm_add_amount": add}
            for n, (sj, own, name, now, add) in enumerate(accounts)
        ]  # fmt: skip
        end = f"{year}-{quarter * 3:02}-{30 if quarter in {2, 3} else 31}"
        self.shares[corp, str(year), reprt_code] = [
            {"rcept_no": rcept_no, "corp_code": corp, "se": se, "istc_totqy": f"{shares:,}", "tesstk_co": "-",
             "distb_stock_co": f"{shares:,}", "stlm_dt": end}
            for se in ("보통주", "합계")
        ]  # fmt: skip
