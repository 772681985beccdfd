from ragworks.text.words import content_words


def test_inflected_words_of_question_and_passage_meet():
    assert content_words("Which companies launched rockets?") & content_words("The company launches a rocket.") == (
        content_words("launch rocket")
    )


def test_stop_words_carry_nothing_unless_there_is_nothing_else():
    assert content_words("what is the cache") == content_words("cache")
    assert content_words("to be or not to be") == {"to", "be", "or", "not"}
    assert content_words("?!") == frozenset()
