"""From the register to figures and grades: what is asked, what is stored, what was known when; over loopback and PostgreSQL."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from uuid import UUID, uuid4

import pandas as pd
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text

from chartinsight_lib import ledger
from chartinsight_lib.clients.dart import DartClient
from chartinsight_lib.collect_financials import collect_financials, months, open_client
from chartinsight_lib.db.pace import SharedAllowance
from chartinsight_lib.db.roles import Role
from chartinsight_lib.errors import AuthFailed, ConfigError, Fenced, NotFound, RateLimited, RunFailed, TruncatedReply
from chartinsight_lib.grades import grade, grades
from chartinsight_lib.jobs import find_job
from chartinsight_lib.pace import LocalSlots, Pacer
from chartinsight_lib.runner import run_job
from chartinsight_lib.settings import PROJECT
from tests.http.fake_dart import DROP, KEY, FakeDart, says

GANA, DARA, MABA = (
    ("00990001", "000990", "가나전자"),
    ("00990002", "099100", "다라은행"),
    ("00990003", "0099A0", "마바바이오"),
)
TODAY = datetime(2025, 4, 1, 1, tzinfo=UTC)  # 10:00 in Seoul
RECEIVED = {1: (0, "0515"), 2: (0, "0814"), 3: (0, "1114"), 4: (1, "0320")}


def receipt(year: int, quarter: int, number: int) -> str:
    """A receipt number of the day on which a report is usually received."""
    after, day = RECEIVED[quarter]
    return f"{year + after}{day}{number:06}"


@dataclass
class Stage:
    """A register, a database with three stocks, and a clock."""

    dart: FakeDart
    engine: Engine
    now: datetime = TODAY

    def client(self, **other) -> DartClient:
        usual = {
            "base_url": self.dart.url,
            "pacer": Pacer(LocalSlots(), 10_000),
            "back_off_s": 0.001,
            "clock": self.clock,
        }
        return DartClient(KEY, **usual | other)

    def clock(self) -> datetime:
        return self.now

    def run(self, client: DartClient | None = None, years: int = 1, **other):
        """One collection, as a job would do it, from the first of January last year on; `asked`: the APIs it asked."""
        before = len(self.dart.asked)
        with (
            client or self.client() as used,
            ledger.notebook_run(self.engine, None, job="collect_financials", clock=self.clock) as run_id,
        ):
            report = collect_financials(self.engine, used, run_id=run_id, clock=self.clock, years=years, **other)
        self.asked = [name for name, _ in self.dart.asked[before:]]
        return report

    def files(self, company, year: int, *incomes: int, **other) -> None:
        """A company files the reports of a year whose quarters earned these."""
        corp, stock, name = company
        for quarter in range(1, len(incomes) + 1):
            rcept_no = receipt(year, quarter, int(corp[-3:]))
            self.dart.file(corp, stock, name, rcept_no, year=year, quarter=quarter)
            to_date = sum(incomes[:quarter])
            told = {"income": to_date} if quarter == 4 else {"income": incomes[quarter - 1], "to_date": to_date}
            self.dart.tell(corp, rcept_no, year=year, quarter=quarter, **told, **other)

    def rows(self, statement: str, **values) -> list[tuple]:
        with self.engine.connect() as conn:
            return [tuple(row) for row in conn.execute(text(statement), values)]

    def grade(self, as_of: date, code: str = "000990"):
        with self.engine.connect() as conn:
            return grade(conn, code, as_of)


@pytest.fixture
def stage(loader) -> Iterator[Stage]:
    with loader.begin() as conn:
        for _, code, name in (GANA, DARA, MABA):
            conn.execute(
                text(
                    "INSERT INTO live.instruments (market, code, name, kind, currency, source, run_id) "
                    "VALUES ('KRX', :code, :name, 'stock', 'KRW', 'test', :run)"
                ),
                {"code": code, "name": name, "run": UUID(int=1)},
            )
    with FakeDart() as dart:
        yield Stage(dart, loader)


def test_a_filing_is_stored_as_it_came_with_the_date_on_which_it_was_received(stage):
    stage.files(GANA, 2024, 100, 110, 120, 130)
    stage.run()
    ((payload, shares, received, report_name, fs_div, reprt_code),) = stage.rows(
        "SELECT payload, shares, received_on, report_name, fs_div, reprt_code FROM api.filings "
        "WHERE code = '000990' AND period_end = '2024-09-30'"
    )
    assert payload == stage.dart.statements["00990001", "2024", "11014", "CFS"]
    assert shares == stage.dart.shares["00990001", "2024", "11014"]
    assert (received, report_name) == (date(2024, 11, 14), "분기보고서 (2024.09)")
    assert (fs_div, reprt_code) == ("CFS", "11014")


def test_figures_know_their_filing_and_the_day_from_which_they_were_known(stage):
    stage.files(GANA, 2024, 100, 110, 120, 130)
    stage.run()
    found = stage.rows(
        "SELECT kind, period_end, known_from, owner_income, owner_income_to_date, eps, rcept_no, minus_rcept_no, newest "
        "FROM api.financials WHERE code = '000990' ORDER BY kind, period_end"
    )
    year, nine = "20250320000001", "20241114000001"
    assert found == [
        ("annual", date(2024, 12, 31), date(2025, 3, 20), 460, None, 0.46, year, "", True),
        ("quarter", date(2024, 3, 31), date(2024, 5, 15), 100, 100, 0.1, "20240515000001", "", True),
        ("quarter", date(2024, 6, 30), date(2024, 8, 14), 110, 210, 0.11, "20240814000001", "", True),
        ("quarter", date(2024, 9, 30), date(2024, 11, 14), 120, 330, 0.12, nine, "", True),
        ("quarter", date(2024, 12, 31), date(2025, 3, 20), 130, 460, 0.13, year, nine, True),
    ]


def test_a_filing_is_fetched_once_for_ever_and_a_daily_run_asks_for_the_list_alone(stage):
    stage.files(GANA, 2024, 100, 110, 120, 130)
    stage.files(DARA, 2024, 10, 11, 12, 13)
    report = stage.run()
    assert stage.asked.count("fnlttSinglAcntAll.json") == 8
    assert stage.asked.count("stockTotqySttus.json") == 8
    assert report.items["000990"] == {
        "read": 4, "fetched": 4, "inserted": 5, "updated": 0, "unchanged": 0, "deleted": 0,
    }  # fmt: skip
    stage.now += timedelta(days=1)
    before = stage.rows("SELECT * FROM live.financials ORDER BY 1, 2, 3, 4, 5")
    report = stage.run()
    assert stage.asked == ["list.json"] * 2  # the months of today and of a week ago
    assert set(report.items) == {"list"}
    assert stage.rows("SELECT * FROM live.financials ORDER BY 1, 2, 3, 4, 5") == before
    # A new filing costs its statements and its shares.
    stage.now = datetime(2025, 5, 16, 1, tzinfo=UTC)
    stage.files(GANA, 2025, 200)
    report = stage.run()
    assert stage.asked.count("fnlttSinglAcntAll.json") == stage.asked.count("stockTotqySttus.json") == 1
    assert report.items["000990"]["inserted"] == 1
    assert report.items["000990"]["unchanged"] == 5


def test_companies_that_are_no_instruments_cost_no_request_until_they_are(stage):
    stage.files(("00990009", "099900", "하카상사"), 2024, 1, 2, 3, 4)
    stage.run()
    assert "fnlttSinglAcntAll.json" not in stage.asked
    with stage.engine.begin() as conn:
        conn.execute(
            text(
                "INSERT INTO live.instruments (market, code, name, kind, currency, source, run_id) "
                "VALUES ('KRX', '099900', '하카상사', 'stock', 'KRW', 'test', :run)"
            ),
            {"run": uuid4()},
        )
    assert stage.run().items["099900"]["fetched"] == 4


def test_a_correction_is_a_newer_row_and_each_day_sees_what_was_known_on_it(stage):
    stage.files(GANA, 2023, 100, 100, 100, 100)
    stage.files(GANA, 2024, 100, 100, 150)
    stage.now = datetime(2024, 11, 20, 1, tzinfo=UTC)
    stage.run()
    corp, stock, name = GANA
    stage.dart.file(corp, stock, name, "20241202000001", year=2024, quarter=3, corrected=True)
    stage.dart.tell(corp, "20241202000001", year=2024, quarter=3, income=110, to_date=310)
    stage.now = datetime(2024, 12, 3, 1, tzinfo=UTC)
    stage.run()
    assert stage.rows(
        "SELECT known_from, owner_income, newest FROM api.financials WHERE period_end = '2024-09-30' ORDER BY 1"
    ) == [(date(2024, 11, 14), 150, False), (date(2024, 12, 2), 110, True)]
    told = {day: stage.grade(date(2024, *day)).c.pct for day in ((11, 14), (12, 1), (12, 2))}
    assert told == {(11, 14): pytest.approx(50), (12, 1): pytest.approx(50), (12, 2): pytest.approx(10)}
    assert stage.grade(date(2024, 11, 13)).period_end == date(2024, 6, 30)


def test_what_a_correction_replaced_before_it_was_fetched_counts_as_known_from_the_correction_on(stage):
    stage.files(GANA, 2023, 100, 100, 100, 100)
    stage.files(GANA, 2024, 100, 100, 150)
    corp, stock, name = GANA
    stage.dart.file(corp, stock, name, "20241202000001", year=2024, quarter=3, corrected=True)
    stage.dart.tell(corp, "20241202000001", year=2024, quarter=3, income=110, to_date=310)
    stage.now = datetime(2024, 12, 3, 1, tzinfo=UTC)
    stage.run()
    assert stage.rows("SELECT rcept_no, state FROM live.filings WHERE period_end = '2024-09-30' ORDER BY 1") == [
        ("20241114000001", "superseded"), ("20241202000001", "fetched"),
    ]  # fmt: skip
    assert stage.grade(date(2024, 12, 1)).period_end == date(2024, 6, 30)
    assert stage.grade(date(2024, 12, 2)).c.pct == pytest.approx(10)


def test_a_correction_without_statements_of_its_own_is_asked_for_a_while_and_then_no_more(stage):
    stage.files(GANA, 2024, 100, 100, 150)
    corp, stock, name = GANA
    stage.dart.file(
        corp, stock, name, "20241202000001", year=2024, quarter=3, corrected=True
    )  # the register keeps the first
    stage.now = datetime(2024, 12, 3, 1, tzinfo=UTC)
    stage.run()
    stage.now += timedelta(days=10)
    stage.run()
    assert stage.asked.count("fnlttSinglAcntAll.json") == 1
    assert stage.asked.count("stockTotqySttus.json") == 0  # what is held is not fetched again
    stage.now += timedelta(days=25)
    stage.run()
    assert stage.rows("SELECT state FROM live.filings WHERE rcept_no = '20241202000001'") == [("without",)]
    stage.run()
    assert set(stage.asked) == {"list.json"}


def test_a_company_without_consolidated_accounts_is_taken_by_its_separate_ones(stage):
    stage.files(DARA, 2024, 10, 11, 12, 13, fs_div="OFS")
    stage.run()
    assert stage.rows("SELECT DISTINCT fs_div, state FROM live.filings") == [("OFS", "fetched")]
    assert [params["fs_div"] for name, params in stage.dart.asked if name == "fnlttSinglAcntAll.json"] == [
        "CFS",
        "OFS",
    ] * 4


def test_a_passing_failure_for_consolidated_accounts_is_no_reason_to_take_separate_ones(stage):
    stage.files(GANA, 2024, 100)
    stage.dart.statements["00990001", "2024", "11013", "OFS"] = [{"rcept_no": receipt(2024, 1, 1), "sj_div": "BS"}]
    stage.dart.faults["fnlttSinglAcntAll.json"] += [says("800")] * 5
    report = stage.run()
    assert "서비스가 중지 중입니다" in report.errors["000990"]
    assert stage.rows("SELECT state, fs_div FROM live.filings") == [("listed", None)]


def test_a_fiscal_year_that_ends_in_march_is_found_under_the_name_that_the_register_uses(stage):
    corp, stock, name = MABA
    row = {"corp_code": corp, "corp_name": name, "stock_code": stock, "corp_cls": "K", "flr_nm": name, "rm": ""}
    stage.dart.filings = [
        row | {"report_nm": "사업보고서 (2024.03)", "rcept_no": "20240628000003", "rcept_dt": "20240628"},
        row | {"report_nm": "분기보고서 (2024.06)", "rcept_no": "20240814000003", "rcept_dt": "20240814"},
    ]
    # Named after the year of the beginning: 2023 for the one to March 2024. Under 2024 lies the quarter of the next one.
    stage.dart.tell(corp, "20240628000003", year=2023, quarter=4, income=400)
    stage.dart.tell(corp, "20240814000003", year=2024, quarter=1, income=90, to_date=90)
    report = stage.run()
    assert report.errors == {}
    assert stage.rows("SELECT rcept_no, bsns_year, reprt_code FROM live.filings ORDER BY 1") == [
        ("20240628000003", "2023", "11011"), ("20240814000003", "2024", "11013"),
    ]  # fmt: skip
    assert stage.rows("SELECT kind, period_end, owner_income FROM live.financials ORDER BY 1") == [
        ("annual", date(2024, 3, 31), 400), ("quarter", date(2024, 6, 30), 90),
    ]  # fmt: skip


def test_a_company_of_which_only_a_quarter_is_listed_is_asked_for_its_fiscal_year(stage):
    stage.files(GANA, 2025, 100)
    stage.now = datetime(2025, 5, 20, 1, tzinfo=UTC)
    assert stage.run(years=0).items["000990"]["fetched"] == 1
    assert stage.asked.count("company.json") == 1


# Failures.


def test_a_company_that_fails_is_named_and_the_others_are_stored(stage):
    for company in (GANA, DARA, MABA):
        stage.files(company, 2024, 100, 110)
    stage.dart.statements["00990002", "2024", "11012", "CFS"][1]["thstrm_amount"] = "a lot"
    report = stage.run()
    assert set(report.errors) == {"099100"}
    assert "dart 099100 20240814000002: thstrm_amount of 매출액 is 'a lot'" in report.errors["099100"]
    with pytest.raises(RunFailed, match="099100"):
        report.check()
    assert stage.rows("SELECT item, state FROM ops.run_items WHERE item <> 'list' ORDER BY 1") == [
        ("000990", "done"), ("0099A0", "done"), ("099100", "failed"),
    ]  # fmt: skip
    # What came is kept as it came, and is read again when the company's next filing comes.
    assert stage.rows("SELECT count(*) FROM live.filings WHERE state = 'fetched'") == [(6,)]


def test_what_came_before_a_failure_of_a_company_is_kept(stage):
    stage.files(GANA, 2024, 100, 110, 120, 130)
    # The second period of four: the newest is asked first.
    answers = [None, says("100")]
    stage.dart.faults["fnlttSinglAcntAll.json"] += answers
    report = stage.run()
    assert "필드의 부적절한 값입니다" in report.errors["000990"]
    assert stage.rows("SELECT period_end FROM live.filings WHERE state = 'fetched'") == [(date(2024, 12, 31),)]
    assert stage.run().items["000990"]["fetched"] == 3


def test_a_register_that_answers_nobody_ends_the_run_after_some_companies(stage):
    companies = [(f"0088{n:04}", f"88{n:04}", f"회사{n}") for n in range(9)]
    with stage.engine.begin() as conn:
        for company in companies:
            conn.execute(
                text(
                    "INSERT INTO live.instruments (market, code, name, kind, currency, source, run_id) "
                    "VALUES ('KRX', :code, :code, 'stock', 'KRW', 'test', :run)"
                ),
                {"code": company[1], "run": uuid4()},
            )
            stage.files(company, 2024, 100)
    stage.dart.faults["fnlttSinglAcntAll.json"] += [DROP] * 100
    report = stage.run()
    assert len(report.errors) == 6  # five companies, and why the run ended
    assert "5 companies in a row had no answer; 4 are left" in report.errors["dart"]


def test_a_key_that_is_refused_ends_the_run_at_once(stage):
    stage.files(GANA, 2024, 100)
    stage.dart.faults["list.json"].append(says("010"))
    with pytest.raises(AuthFailed):
        stage.run()
    assert len(stage.dart.asked) == 1


def test_a_list_that_is_not_whole_is_not_taken_for_whole_and_is_read_again(stage):
    stage.files(GANA, 2024, 100, 110, 120, 130)
    stage.run(years=0)  # 2025 alone
    cut = b'{"status": "000", "page_no": 1, "page_count": 100, "total_count": 9, "total_page": 1, "list": []}'
    stage.dart.faults["list.json"].append((200, "application/json", cut))
    with pytest.raises(TruncatedReply):
        stage.run(years=1)
    assert stage.run(years=1).items["list"]["inserted"] == 3


def test_an_odd_row_of_the_list_is_named_and_hides_no_other_and_its_days_are_listed_again(stage):
    stage.files(GANA, 2024, 100, 110, 120)
    odd = dict(stage.dart.filings[1], stock_code="99")
    stage.dart.filings.append(odd | {"rcept_no": "20240814000009"})
    report = stage.run()
    assert report.errors["list"].startswith("1 rows are refused. First: dart list.json: stock_code is '99'")
    assert report.items["000990"]["fetched"] == 3
    stage.run()
    listed = [params["bgn_de"] for name, params in stage.dart.asked[-3:] if name == "list.json"]
    assert listed == ["20240801", "20250324", "20250401"]


def test_a_run_that_was_given_up_writes_no_more(stage):
    stage.files(GANA, 2024, 100)
    with (
        pytest.raises(Fenced),
        stage.client() as client,
        ledger.notebook_run(stage.engine, None, job="collect_financials", clock=stage.clock) as run_id,
    ):
        with stage.engine.begin() as conn:
            conn.execute(text("UPDATE ops.runs SET state = 'lost' WHERE run_id = :run"), {"run": run_id})
        collect_financials(stage.engine, client, run_id=run_id, clock=stage.clock)
    assert stage.rows("SELECT count(*) FROM live.filings") == [(0,)]


# The allowance.


def test_what_a_days_allowance_leaves_over_is_fetched_the_next_day_and_nothing_twice(stage):
    for company in (GANA, DARA, MABA):
        stage.files(company, 2024, 100, 110, 120, 130)
    allowance = SharedAllowance(stage.engine, "print")
    lists = len(list(months(date(2024, 1, 1), date(2025, 4, 1))))
    days = []
    for _ in range(4):
        used = len(stage.dart.asked)
        report = stage.run(stage.client(allowance=allowance, daily=lists + 9))
        assert report.errors == {}
        days.append((len(stage.dart.asked) - used, report.items.get("allowance", {}).get("left")))
        stage.now += timedelta(days=1)
    # 24 requests for 12 filings, and the lists: 16 months on the first day, then two, and one once March is a week ago.
    assert lists == 16
    assert [left for _, left in days] == [2, None, None, None]
    assert days[0][0] == lists + 9
    fetched = [tuple(params.values()) for name, params in stage.dart.asked if name == "fnlttSinglAcntAll.json"]
    assert stage.rows("SELECT state, count(*) FROM live.filings GROUP BY 1") == [("fetched", 12)]
    assert len(set(fetched)) == 12
    assert len(fetched) <= 13  # one whose shares the first day did not allow any more


def test_an_allowance_that_is_used_up_before_the_list_was_read_is_an_error(stage):
    stage.dart.quota = 0
    with pytest.raises(RateLimited):
        stage.run()


def test_two_processes_share_one_allowance(stage, database):
    program = (
        "import sys\n"
        "from datetime import date\n"
        "from sqlalchemy import create_engine\n"
        "from chartinsight_lib.db.pace import SharedAllowance\n"
        "allowance = SharedAllowance(create_engine(sys.argv[1]), 'print')\n"
        "print(sum(allowance.take('day', date(2025, 4, 1), 100) for _ in range(80)))\n"
    )
    url = database.urls[Role.LOADER].render_as_string(hide_password=False)
    running = [
        subprocess.Popen([sys.executable, "-c", program, url], stdout=subprocess.PIPE, text=True, env=os.environ)
        for _ in range(2)
    ]
    taken = [int(process.communicate(timeout=60)[0]) for process in running]
    assert sum(taken) == 100
    assert stage.rows("SELECT key, day, used FROM ops.allowances") == [("print:day", date(2025, 4, 1), 100)]
    # The next day and another key are counts of their own; what the server says stands above what was counted.
    allowance = SharedAllowance(stage.engine, "print")
    assert allowance.take("day", date(2025, 4, 2), 100)
    allowance.use_up("day", date(2025, 4, 2), 100)
    assert not allowance.take("day", date(2025, 4, 2), 100)
    assert SharedAllowance(stage.engine, "other").take("day", date(2025, 4, 2), 100)


# Single companies, grades, the job.


def test_single_companies_are_asked_by_their_own_lists(stage):
    stage.files(GANA, 2024, 100, 110)
    stage.files(DARA, 2024, 10, 11)
    stage.dart.listed = [(corp, name, stock) for corp, stock, name in (GANA, DARA)]
    report = stage.run(codes=["099100"])
    assert stage.asked[:2] == ["corpCode.xml", "list.json"]
    assert set(report.items) == {"list", "099100"}
    assert stage.run(codes=["099100"]).items["list"] == {"read": 2, "inserted": 0, "unchanged": 2}
    assert stage.asked == ["list.json"]
    with pytest.raises(NotFound, match="000995: no company is listed under this code"):
        stage.run(codes=["099100", "000995"])


def test_a_split_between_the_years_distorts_no_grade(stage):
    stage.files(GANA, 2023, 100, 100, 100, 100, shares=1_000)
    stage.files(GANA, 2024, 100, 100, 130, shares=50_000)
    stage.now = datetime(2024, 11, 20, 1, tzinfo=UTC)
    stage.run()
    assert (
        stage.grade(date(2024, 11, 20))
        .reasons[0]
        .endswith("50.00 times as many shares as in 2023-09, and no known split tells why")
    )
    with stage.engine.begin() as conn:
        conn.execute(
            text(
                "INSERT INTO live.factors SELECT id, '2024-02-05', 'test', 0.02, 50, 'split', now(), :run "
                "FROM live.instruments WHERE code = '000990'"
            ),
            {"run": uuid4()},
        )
    assert stage.grade(date(2024, 11, 20)).c.pct == pytest.approx(30)


def test_the_grades_of_a_market_are_a_frame_with_reasons(stage):
    for year, incomes in ((2021, (25,) * 4), (2022, (32,) * 4), (2023, (40,) * 4), (2024, (52, 52, 52, 60))):
        stage.files(GANA, year, *incomes, equity=1_000)
    stage.files(DARA, 2024, 10, 11, 12, 13)
    stage.run(years=4)
    with stage.engine.connect() as conn:
        found = grades(conn, "KRX", date(2025, 4, 1))
    assert found["letter"].to_dict() == {"000990": "A", "099100": "unknown"}
    gana = found.loc["000990"]
    # 60 against 40; 128/100, 160/128, 216/160: +28 %, +25 %, +35 %; 216 on 1,000.
    assert (gana["c_pct"], gana["a_pct"], gana["roe_pct"]) == pytest.approx((50.0, 25.0, 21.6))
    assert (gana["period_end"], gana["known_from"]) == (date(2024, 12, 31), date(2025, 3, 20))
    assert gana["reasons"].splitlines()[2] == "ROE met: return on equity over twelve months: 21.6 %"
    assert pd.isna(found.loc["099100", "c_pct"])
    with stage.engine.connect() as conn:
        assert grades(conn, "KRX", date(2020, 1, 1)).empty


def test_the_job_runs_by_its_name_with_the_key_of_the_settings_and_leaves_no_trace_of_it(
    stage, database, settings, tmp_path
):
    stage.files(GANA, 2024, 100, 110, 120, 130)
    dart = {"dart_url": stage.dart.url, "dart_key": SecretStr(KEY), "now": stage.now.isoformat()}
    here = settings.model_copy(update={"runs_dir": tmp_path / "runs", **dart})
    run = run_job(database, here, find_job(PROJECT, "collect_financials"), {"codes": [], "years": 1})
    assert run.rows["fetched"] == 4
    assert stage.rows("SELECT count(*) FROM live.financials") == [(5,)]
    kept = [path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert kept
    assert not [content for content in kept if KEY.encode() in content]
    dumped = "".join(
        str(row)
        for table in ("live.filings", "ops.runs", "ops.run_items", "ops.pace", "ops.allowances")
        for row in stage.rows(f"SELECT * FROM {table}")
    )
    assert KEY not in dumped


def test_without_a_key_the_message_says_where_one_is_had(settings):
    with pytest.raises(ConfigError, match=r"opendart.fss.or.kr \(free\)"):
        open_client(settings)


def test_the_reader_sees_filings_and_financials(stage, database):
    stage.files(GANA, 2024, 100)
    stage.run()
    reader = database.engine(Role.READER)
    with reader.connect() as conn:
        assert conn.execute(text("SELECT count(*) FROM api.financials")).scalar_one() == 1
        assert conn.execute(text("SELECT count(*) FROM api.filings")).scalar_one() == 1
    reader.dispose()


@pytest.mark.parametrize(
    ("since", "until", "expected"),
    [
        (date(2024, 1, 1), date(2024, 1, 31), [(date(2024, 1, 1), date(2024, 1, 31))]),
        (
            date(2023, 12, 15), date(2024, 2, 2),
            [
                (date(2023, 12, 15), date(2023, 12, 31)), (date(2024, 1, 1), date(2024, 1, 31)),
                (date(2024, 2, 1), date(2024, 2, 2)),
            ],
        ),
        (date(2024, 2, 2), date(2024, 2, 1), []),
    ],
)  # fmt: skip
def test_days_are_divided_by_months(since, until, expected):
    assert list(months(since, until)) == expected
