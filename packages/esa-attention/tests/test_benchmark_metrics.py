"""Published metrics on answers whose scores are known: counted by hand, or said by the benchmarks' own scorers.

What is marked as theirs was printed by LongBench's ``metrics.py`` (2e00731, with rouge 1.0.1, fuzzywuzzy 0.18.0, jieba
0.42.1), by InfiniteBench's ``compute_scores.py`` (88b3daa) and by rouge-score 0.1.2.
"""

import pytest

from esa_attention.evaluation.benchmarks.metrics import infinitebench as ib
from esa_attention.evaluation.benchmarks.metrics.matching import (
    classification,
    code_similarity,
    number_share,
    paragraph_number,
    printable,
    string_match_all,
    string_match_part,
)
from esa_attention.evaluation.benchmarks.metrics.needles import (
    edit_distance,
    key_word_or_alike,
    key_words_share,
    words_of_answer_share,
)
from esa_attention.evaluation.benchmarks.metrics.rouge import rouge_l, rouge_lsum
from esa_attention.evaluation.benchmarks.metrics.words import characters_f1, segmented_f1, word_f1


@pytest.mark.parametrize(
    ("answer", "wanted", "score"),
    [
        ("The red fox!", "a red dog", 1 / 2),  # red of (red, fox) and (red, dog)
        ("in in in Paris", "In Paris", 2 / 3),  # 2 of 4, 2 of 2
        ("The, a, an", "the", 0.0),  # articles only
        ("", "", 0.0),
        ("yes", "No", 0.0),
        ("don't", "dont", 1.0),
    ],
)
def test_word_f1(answer, wanted, score):
    assert word_f1(answer, wanted) == pytest.approx(score)


def test_chinese_f1_by_characters_and_by_words():
    # 5 of 8 characters, 5 of 5: 2 * 5 / 13.
    assert characters_f1(
        "\u4eca\u5929\uff0c\u5929\u6c14\u5f88\u597d\u3002AB", "\u5929\u6c14\u5f88\u597d A"
    ) == pytest.approx(10 / 13)

    def pairs(text):
        return [text[i : i + 2] for i in range(0, len(text), 2)]

    # Words of two characters: (ab, cd, a punctuation mark that goes) and (ab, ef).
    assert segmented_f1("abcd\u3002\uff01", "ABef", pairs) == pytest.approx(1 / 2)


@pytest.mark.parametrize(
    ("answer", "wanted", "score"),
    [
        ("the cat sat", "the cat sat", 1.0),
        # 2 of 4 different words, 2 of 3.
        ("the cat on mats", "the cat sat", 4 / 7),
        # Words count once: one of two, one of one.
        ("yes yes no", "yes yes yes", 2 / 3),
        # Case matters.
        ("Cat", "cat", 0.0),
        # Lin's example: w1 w2 from one sentence, w1 w3 w5 from the other; 4 of 8 words, 4 of 5.
        ("w1 w2 w6 w7 w8. w1 w3 w8 w9 w5", "w1 w2 w3 w4 w5", 2 * (4 / 8) * (4 / 5) / (4 / 8 + 4 / 5)),
        # White space behind the last stop is a word of its own: 1 of 2, 1 of 1.
        ("yes.\n", "yes", 2 / 3),
        ("yes.", "yes", 1.0),
        ("", "yes", 0.0),
        ("...", "yes", 0.0),
    ],
)
def test_rouge_l_as_longbench_has_it(answer, wanted, score):
    assert rouge_l(answer, wanted) == pytest.approx(score, abs=2e-8)  # 1e-8 in its denominator


@pytest.mark.parametrize(
    ("answer", "wanted", "score"),
    [
        ("The CAT sat!", "the cat sat", 1.0),
        # Lines are sentences; words count as often as they stand there: 2 of 4, 2 of 3.
        ("the cat\non mats", "the cat sat", 4 / 7),
        ("w1 w2 w6 w7 w8\nw1 w3 w8 w9 w5", "w1 w2 w3 w4 w5", 2 * (4 / 10) * (4 / 5) / (4 / 10 + 4 / 5)),
        # None is counted more often than both have it: "a" stands once in the answer. 1 of 1, 1 of 2.
        ("a", "a\na", 2 / 3),
        ("\u4eca\u5929", "\u4eca\u5929", 0.0),  # not a letter of ASCII in it
        ("", "a", 0.0),
    ],
)
def test_rouge_lsum_as_infinitebench_has_it(answer, wanted, score):
    assert rouge_lsum(answer, wanted) == pytest.approx(score)


def test_both_kinds_of_rouge_as_their_packages_print_them():
    answer = "The committee met in May. It did not decide. A vote is due, it said.\nMembers left."
    wanted = "The committee met. No vote was held in May.\nIt is due in June, members said."
    # Printed by `rouge` 1.0.1 and `rouge-score` 0.1.2.
    assert rouge_l(answer, wanted) == pytest.approx(0.5624999950195313, abs=1e-12)
    assert rouge_lsum(answer, wanted) == pytest.approx(0.6060606060606061, abs=1e-12)


@pytest.mark.parametrize(
    ("answer", "wanted", "score"),
    [("There are 7, not 17 or 7.", "7", 2 / 3), ("seven", "7", 0.0), ("07", "7", 0.0), ("7", "7", 1.0)],
)
def test_count(answer, wanted, score):
    assert number_share(answer, wanted) == pytest.approx(score)


def test_retrieval_wants_the_number_of_a_paragraph():
    assert paragraph_number("Paragraph 15", "Paragraph ") == "15"
    assert paragraph_number("\u6bb5\u843d15", "\u6bb5\u843d") == "15"
    assert paragraph_number("the 15th", "Paragraph ") is None


@pytest.mark.parametrize(
    ("answer", "wanted", "classes", "score"),
    [
        ("Type: city", "city", ["city", "state"], 1.0),
        ("city or state", "city", ["city", "state"], 1 / 2),
        ("state", "city", ["city", "state"], 0.0),
        # A name that is part of the right one does not count...
        ("other city", "other city", ["city", "other city", "state"], 1.0),
        # ...but the published loop passes over the one behind it.
        ("abc", "abc", ["a", "ab", "abc"], 1 / 2),
    ],
)
def test_classification(answer, wanted, classes, score):
    assert classification(answer, wanted, classes) == pytest.approx(score)


@pytest.mark.parametrize(
    ("answer", "wanted", "score"),
    [
        ("\n\nreturn x\nmore", "return x", 1.0),
        ("# a comment\n```python\nreturn y", "return x", 0.88),  # 7 of 8 characters: 87.5, to the even hundredth
        ("// only a comment", "return x", 0.0),
        ("abcd", "bcde", 0.75),  # 2 * 3 / 8
        ("", "", 1.0),
    ],
)
def test_code_similarity(answer, wanted, score):
    assert code_similarity(answer, wanted) == pytest.approx(score)


def test_ruler_finds_strings_in_any_case():
    assert string_match_all("It is ALPHA and 12.", ["alpha", "beta", "12", "3"]) == pytest.approx(1 / 2)
    assert string_match_part("It is ALPHA", ["beta", "alpha"]) == 1.0
    assert string_match_part("It is", ["beta", "alpha"]) == 0.0
    assert printable(" \x00a\tb\x1f ") == "a\nb"


def test_needlebench():
    assert edit_distance("kitten", "sitting") == 3
    assert edit_distance("", "abc") == 3
    assert key_word_or_alike("It is gold, he said", "The vault holds gold", "gold") == 1.0
    # Without white space "abcd" against "abXd e": 2 of 5 edits; a fifth of 3/5.
    assert key_word_or_alike("ab cd", "ab Xd\ne", "key") == pytest.approx(0.2 * 3 / 5)
    assert key_word_or_alike("", " ", "key") == pytest.approx(0.2)
    assert key_words_share("red and blue", ["red", "green", "blue", "Red"]) == pytest.approx(1 / 2)
    assert words_of_answer_share("it was HILLARY clinton", "Hillary Rodham Clinton") == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("metric", "answer", "wanted", "score"),
    [
        (ib.value_found, 'The value is: "ab-12".', "ab-12", 1.0),
        (ib.value_found, "The value is: ab-123", "ab-12", 0.0),
        (ib.first_number, "The key is 00714, or 3", "00714", 1.0),
        (ib.first_number, "3, or 00714", "00714", 0.0),
        (ib.last_whole_number, "so it returns: -12.", -12, 1.0),
        (ib.last_whole_number, "-12, so it returns that", -12, 0.0),
        (ib.last_whole_number, "", 0, 0.0),
        (ib.number_named, "the median 3.5 of 9", 3.5, 1.0),
        (ib.number_named, "3.5", 3, 0.0),
        (ib.number_named, "none", 3, 0.0),
        (ib.leading_share, "[1, 4, 9, 8]", [1, 4, 8, 8], 1 / 2),
        (ib.leading_share, "[-1, 4]", [-1, 4], 0.0),  # signs are not read
        (ib.leading_share, "1", [1, 2, 3, 4], 1 / 4),
        (ib.speaker_named, "Ace, I think", ["ACE", "ACE ROTHSTEIN"], 1.0),
        (ib.speaker_named, "Rothstein", ["ACE", "ROTHSTEIN"], 0.0),  # only the first is looked for
        (ib.function_named, "B. fetch", ["fetch", "B"], 1.0),
        (ib.function_named, "The correct option is: fetch", ["fetch", "B"], 1.0),
        (ib.function_named, "I think the answer is: C", ["fetch", "B"], 0.0),
        (ib.function_named, "fetch", ["fetch", "B"], 0.0),
        (ib.function_named, "The answer is:", ["fetch", "B"], 0.0),
        (ib.choice_named, "B. Walking", ["Walking", "B"], 1.0),
        (ib.choice_named, "A", ["Walking", "B"], 0.0),
        (ib.choice_named, "the answer is B", ["Walking", "B"], 1.0),
        (ib.choice_named, "Walking", ["Walking", "B"], 1.0),
        (ib.choice_named, "surely it is B here", ["Walking", "B"], 1.0),
        (ib.choice_named, "no idea", ["Walking", "B"], 0.0),
        (ib.choice_named, "  ", ["Walking", "B"], 0.0),
    ],
)
def test_accuracies_of_infinitebench(metric, answer, wanted, score):
    assert metric(answer, wanted) == pytest.approx(score)
