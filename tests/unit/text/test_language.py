from __future__ import annotations

import pytest

from ragworks.text.assemble import Piece, assemble
from ragworks.text.language import language
from ragworks.types import Parsed


def of(*pieces: Piece) -> Parsed:
    return assemble(pieces, "text/plain")


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("en", "The frame is made of steel and the brakes need new pads every spring."),
        ("de", "Der Rahmen ist aus Stahl und die Bremsen brauchen jedes Jahr neue Beläge."),
        ("fr", "Le cadre est en acier et les freins ont besoin de nouvelles plaquettes chaque printemps."),
        ("es", "El marco es de acero y los frenos necesitan pastillas nuevas cada primavera."),
        ("pl", "Rama jest wykonana ze stali, a hamulce potrzebują nowych klocków każdej wiosny."),
        ("ru", "Рама сделана из стали, и тормозам каждую весну нужны новые колодки."),
        ("uk", "Рама зроблена зі сталі, і гальмам щовесни потрібні нові колодки."),  # noqa: RUF001 - that is how it is written
        ("ar", "الإطار مصنوع من الفولاذ وتحتاج المكابح إلى وسادات جديدة كل ربيع."),
        ("he", "המסגרת עשויה פלדה והבלמים זקוקים לרפידות חדשות בכל אביב."),
        ("zh", "车架由钢制成，刹车每年春天都需要新的刹车片。"),  # noqa: RUF001 - that is how it is written
        ("ja", "フレームは鋼でできており、ブレーキは毎年春に新しいパッドが必要です。"),
        ("ko", "프레임은 강철로 만들어졌으며 브레이크는 매년 봄마다 새 패드가 필요합니다."),
    ],
)
def test_a_sentence_is_enough(code: str, text: str) -> None:
    assert language(of(Piece(text))) == code


@pytest.mark.parametrize(
    "text",
    [
        "OK",
        "1234 5678 90.12 € 33%",
        "SKU-4432 A/B-77 QX-9 ZZ9",
        "12.4 | 33.1 | 44\n" * 200,
        '{"id": 3, "ok": true, "type": "x"}\n' * 100,
        "2024-01-03T09:38:26 INFO worker[33] request id=9f3a status=200 bytes=4433\n" * 60,
        "Name;Age;City\n" + "Ann;30;Rome\nBob;41;Oslo\nZoe;35;Lyon\n" * 50,
    ],
)
def test_what_is_no_language_has_none_however_long(text: str) -> None:
    assert language(of(Piece(text))) is None


def test_tables_and_code_do_not_count() -> None:
    english = "for every bell in the frame do nothing at all " * 40
    german = Piece("Der Rahmen ist aus Stahl und die Bremsen brauchen neue Beläge.")
    assert language(of(Piece(english, kind="code"), german, Piece(english, kind="table"))) == "de"


def test_most_of_the_text_decides_and_not_its_beginning() -> None:
    licence = Piece("Permission is hereby granted, free of charge, to any person obtaining a copy.", ("Licence",))
    chapters = [Piece("Die Bremsen brauchen in jedem Frühjahr neue Beläge. " * 30, (str(at),)) for at in range(20)]
    assert language(of(licence, *chapters)) == "de"


def test_a_document_without_prose_has_no_language() -> None:
    assert language(Parsed("", (), "text/plain")) is None
