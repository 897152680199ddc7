"""Invented names and codes. No company of these names exists, and the two best known codes of KRX are never used."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from chartinsight_lib.simulator.model import Sector

RESERVED = frozenset({"005930", "000660"})
"""Codes that people recognise: an invented market must not look like those companies."""

# Two pieces make a name that is on no list of companies; what a company does is its ending.
_FIRST = (
    "가람솔 나래온 다솜별 라온빛 마루샘 바람꽃 사랑샘 아라솔 자라온 차오름 카온별 타라솔 파란샘 하늬솔 고을빛 너울샘 도담솔 "
    "로운별 모람빛 보람솔 소담별 오롬샘 조약솔 초롱빛 코람별 토담샘 포근솔 호수빛 구름솔 누리샘 두레별 루미솔 무지빛 부름솔 "
    "수피아별 우듬솔 주름빛 푸름샘 후박솔 그린내별"
)
_SECOND = "가나다라마바사온윤해결담별숲울찬한휘빈솜"

SECTORS = tuple(
    Sector(code, name, board)
    for board, table in (
        ("KOSPI", (
            "001 종합(KOSPI)|002 대형주|003 중형주|004 소형주|005 음식료품|006 섬유의복|007 종이목재|008 화학|009 의약품|"
            "010 비금속광물|011 철강금속|012 기계|013 전기전자|014 의료정밀|015 운수장비|016 유통업|017 전기가스업|018 건설업|"
            "019 운수창고|020 통신업|021 금융업|024 증권|025 보험|026 서비스업"
        )),
        ("KOSDAQ", (
            "101 종합(KOSDAQ)|107 건설|108 유통|111 금융|115 음식료·담배|119 화학|120 제약|122 금속|123 기계·장비|"
            "124 일반전기전자|125 의료·정밀기기|126 운송장비·부품|130 인터넷|131 디지털컨텐츠|132 소프트웨어|134 통신장비|"
            "136 반도체|137 IT부품|150 KOSDAQ 150"
        )),
        ("KOSPI", "201 KOSPI200"),
    )
    for code, _, name in (entry.partition(" ") for entry in table.split("|"))
)  # fmt: skip
"""Indices and sectors, ascending in code. Source: Kiwoom's list of sector codes, the common ones."""

WHOLE = frozenset({"001", "002", "003", "004", "101", "150", "201"})
"""Those that are no sectors."""

_ENDINGS = {
    "005": "식품 푸드 제과", "006": "섬유 어패럴", "007": "제지 우드", "008": "화학 케미칼 정밀화학", "009": "제약 약품",
    "010": "세라믹 시멘트", "011": "제강 특수강 금속", "012": "기계 중공업", "013": "전자 전기 디스플레이", "014": "계측 정밀",
    "015": "모터스 조선 오토", "016": "유통 상사", "017": "에너지 가스", "018": "건설 개발", "019": "해운 로지스",
    "020": "텔레콤", "021": "금융지주 캐피탈", "024": "증권", "025": "보험 화재", "026": "홀딩스 서비스",
    "107": "이앤씨", "108": "커머스 리테일", "111": "인베스트", "115": "에프앤비 팜", "119": "머티리얼즈 켐",
    "120": "바이오 파마 셀", "122": "메탈", "123": "테크 로보틱스", "124": "일렉 배터리", "125": "메디칼 옵틱스",
    "126": "모빌리티 파츠", "130": "닷컴 플랫폼", "131": "게임즈 엔터", "132": "소프트 시스템즈", "134": "네트웍스 통신",
    "136": "반도체 세미콘", "137": "마이크로 디바이스",
}  # fmt: skip
SECTOR_CODES = {
    board: tuple(code for code in _ENDINGS if (code < "100") == (board == "KOSPI")) for board in ("KOSPI", "KOSDAQ")
}

_BRANDS = ("NURIBYEOL", "HANEULI", "GAONSAEM", "MIREUON")
_THEMES = (
    ("200", 1.0), ("코스닥150", 1.1), ("레버리지", 2.0), ("인버스", -1.0), ("반도체TOP10", 1.3), ("2차전지테마", 1.4),
    ("배당성장", 0.7), ("단기채권", 0.02), ("바이오", 1.1), ("인버스2X", -2.0), ("은행", 0.8), ("자동차", 1.1), ("국채10년", 0.05),
    ("저변동", 0.6), ("로봇액티브", 1.2), ("게임테마", 1.1),
)  # fmt: skip


class Namer:
    """Gives names and codes, none twice."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        pieces = [first + second for first in _FIRST.split() for second in _SECOND]
        self._stems = iter([pieces[k] for k in rng.permutation(len(pieces))] * len(_ENDINGS))
        self._names: set[str] = set()
        self._codes: set[str] = set(RESERVED)
        self._funds = _fund_names()

    def company(self, sector: str) -> str:
        """Return the name of a company."""
        endings = _ENDINGS[sector].split()
        return self._new(next(self._stems) + endings[int(self._rng.integers(len(endings)))])

    def ended(self, ending: str) -> str:
        """Return a name with a given ending: 리츠, 인프라."""
        return self._new(next(self._stems) + ending)

    def fund(self, *, note: bool) -> tuple[str, float]:
        """Return the name of an ETF, or of an ETN, and its beta."""
        name, beta = next(self._funds)
        return (self._new(f"{name} ETN"), beta) if note else (self._new(name), beta)

    def common(self) -> str:
        """Return the code of a common share: six digits, the last a 0."""
        return self._code(lambda: f"{int(self._rng.integers(100, 49_999)):05d}0")

    def lettered(self) -> str:
        """Return a code as they are given out since the digits ran short: 0000D0."""
        return self._code(lambda: f"0{int(self._rng.integers(1, 200)):03d}{self._letter('ABCDFGHJLMNPRSTVWXYZ')}0")

    def preferred(self, common: str, *, lettered: bool) -> str:
        """Return the code of a preferred share: that of the common one with a 5, or a K for a later series, at the end."""
        code = common[:5] + ("K" if lettered else "5")
        self._codes.add(code)
        return code

    def note(self) -> str:
        """Return the code of an ETN."""
        return self._code(lambda: f"5{int(self._rng.integers(100, 9_999)):05d}")

    def _letter(self, letters: str) -> str:
        return letters[int(self._rng.integers(len(letters)))]

    def _code(self, draw: Callable[[], str]) -> str:
        while (code := draw()) in self._codes:
            pass
        self._codes.add(code)
        return code

    def _new(self, name: str) -> str:
        while name in self._names:
            name += "원"
        self._names.add(name)
        return name


def _fund_names() -> Iterator[tuple[str, float]]:
    number = 1
    while True:
        for theme, beta in _THEMES:
            for brand in _BRANDS:
                yield f"{brand} {theme}{'' if number == 1 else f' {number}호'}", beta
        number += 1
