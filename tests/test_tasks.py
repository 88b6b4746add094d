"""What a request is for: hard cases by hand, other languages, labels, and text that nobody should send."""

from __future__ import annotations

import time
from importlib import resources

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routing.task_text import SAMPLE, sample
from routing.tasks import DEFAULT_MIN, TaskInput, detect, parse_label
from routing.types import TASK_KINDS, TaskKind

CODE = "def total(prices):\n    result = 0\n    for price in prices:\n        result += price\n    return result"
PLAN = "Day 1: arrive, walk through the old town. Day 2: museum, boat trip. Day 3: market, fly home at 18:00."
REVIEW = (
    "I like the idea, but the loop in line 40 runs twice and the name of the function says nothing. Please fix both."
)
NOTES = (
    "Ines opened the meeting. The warehouse move is two weeks late because the shelves did not come. Tom will call the "
    "supplier. The group decided to rent the old hall until May and to tell the customers on Friday."
)
LONG = " ".join([NOTES, PLAN, REVIEW] * 8)


def ask(text: str, system: str = "", before: tuple[tuple[str, str], ...] = ()) -> TaskInput:
    return TaskInput((*before, ("user", text)), system)


def kind_of(parts: TaskInput) -> TaskKind:
    return detect(parts, minimum=0.0).kind


ABOUT_ANOTHER = [
    ("translation", f"Translate this plan into German:\n\n{PLAN}"),
    ("translation", f"Could you put the summary below into Spanish?\n\n{NOTES}"),
    ("translation", "Translate to Dutch: Please write a function that sorts a list and explain the code."),
    ("translation", "Translate into Italian: Is this correct? Check the answer and reply yes or no."),
    ("summarization", f"Summarise this code review in one sentence:\n\n{REVIEW}"),
    ("summarization", f"Give me the gist of this travel plan.\n\n{PLAN}"),
    ("summarization", "tl;dr of this translation guideline: Translate every sentence, keep names, never add notes."),
    ("validation", "Is this translation right?\nEN: The shop opens at nine.\nDE: Der Laden schließt um neun."),
    ("validation", f"Is this summary correct? Answer yes or no.\nSummary: The hall was sold.\nText: {NOTES}"),
    ("validation", f"Check whether this plan is valid and reaches the goal of seeing the museum.\n\n{PLAN}"),
    ("validation", "Was this message classified correctly? Message: my parcel is late. Label: praise"),
    ("classification", "Classify this request as translation, summary or other: please turn the letter into French"),
    ("classification", f"Which category does this plan belong to: travel, work or sports?\n\n{PLAN}"),
    ("intent_detection", 'What does the user want? "translate my invoice to English and send it to the office"'),
    ("intent_detection", "Detect the intent of this utterance: write me a poem about autumn"),
    ("analysis", f"Explain what this function does and why it could be slow:\n\n```python\n{CODE}\n```"),
    ("analysis", f"Analyse the following plan and point out its risks and weaknesses:\n\n{PLAN}"),
    ("analysis", "Extract all dates and names from this translation order: Ms Kim, 3 May, German to Korean, due 9 May"),
    ("code_generation", "Write a Python function that translates a word with a dictionary and summarizes the misses."),
    ("code_generation", "Implement a classifier in Java that labels emails as spam or ham."),
    ("code_generation", "Convert this SQL query to pandas: SELECT name FROM users WHERE age > 30"),
    ("planning", "Make a step-by-step plan for translating our website into five languages by June."),
    ("planning", "Create a study schedule for learning Python in eight weeks."),
    ("long_form_generation", "Write a 2000-word essay about the history of machine translation."),
    ("long_form_generation", "Write a detailed report on how companies classify their customers, at least 1500 words."),
    ("general", "What is the difference between translation and interpretation?"),
    ("general", "What does the word 'analysis' mean?"),
    ("general", "Why do people make plans they never follow?"),
]


@pytest.mark.parametrize(("kind", "text"), ABOUT_ANOTHER, ids=[f"{kind}: {text[:40]}" for kind, text in ABOUT_ANOTHER])
def test_a_request_about_another_task_is_what_it_asks_for(kind: TaskKind, text: str) -> None:
    assert kind_of(ask(text)) == kind


SYSTEM_SETS = [
    ("summarization", "Summarize every text the user sends in two sentences.", NOTES),
    ("translation", "You are a translator. Render everything the user writes in French, and nothing else.", PLAN),
    ("translation", "Translate the user's message into English.", "Can you write a function that sorts numbers?"),
    (
        "classification",
        "Classify each message as complaint, question or praise. Output the label only.",
        "Where is my parcel?",
    ),
    (
        "intent_detection",
        "Detect the user's intent. Intents: book_table, cancel, opening_hours.",
        "summarize my bookings",
    ),
    (
        "intent_detection",
        "You are the NLU module of a car. Output the intent only, do not answer.",
        "plan a route to Bonn",
    ),
    ("validation", "You verify answers. Reply CORRECT or INCORRECT.", "Q: What is the capital of Chile?\nA: Lima"),
    (
        "analysis",
        "Extract names, dates and amounts from each document and return JSON.",
        "Paid 40 euros to Ida Berg on 3 May.",
    ),
    ("analysis", "You explain source code to beginners. Describe what the pasted code does.", CODE),
    (
        "code_generation",
        "You convert requests into a single bash command. Output the command only.",
        "count lines of all csv files",
    ),
    ("planning", "You are a planner. Turn each goal into ordered steps with durations.", "open a bicycle repair shop"),
    ("long_form_generation", "You write complete articles of at least 1500 words on the topic the user gives.", "tea"),
]


@pytest.mark.parametrize(
    ("kind", "system", "text"), SYSTEM_SETS, ids=[f"{row[0]}: {row[1][:40]}" for row in SYSTEM_SETS]
)
def test_a_system_prompt_sets_the_task_of_raw_material(kind: TaskKind, system: str, text: str) -> None:
    assert kind_of(ask(text, system)) == kind


MANNERS = [
    "You are a helpful assistant.",
    "You are Nora, the assistant of a translation agency. Be friendly.",
    "You support the planning department. Answer briefly.",
    "Du bist ein hilfreicher Assistent.",
]


@pytest.mark.parametrize("system", MANNERS)
def test_a_system_prompt_that_only_sets_a_manner_decides_nothing(system: str) -> None:
    assert kind_of(ask(f"Summarize the following notes in two sentences.\n\n{NOTES}", system)) == "summarization"


FOLLOW_UPS = [
    (
        "code_generation",
        "Write a Python function that adds numbers.",
        f"```python\n{CODE}\n```",
        "Can you add error handling?",
    ),
    ("code_generation", "Implement quicksort in Java.", f"```java\n{CODE}\n```", "now in Rust"),
    ("translation", "Translate 'good morning' to French.", "Bonjour", "and in Japanese?"),
    ("planning", "Plan three days in Rome for a family.", PLAN, "make it five days and add a rest day"),
    ("summarization", f"Summarize this: {NOTES}", "The move is late; they rent a hall.", "shorter please"),
    ("general", "Who wrote Faust?", "Johann Wolfgang von Goethe.", "when was he born?"),
]


@pytest.mark.parametrize(("kind", "first", "answer", "then"), FOLLOW_UPS, ids=[row[3] for row in FOLLOW_UPS])
def test_a_short_follow_up_goes_on_with_the_task(kind: TaskKind, first: str, answer: str, then: str) -> None:
    assert kind_of(ask(then, before=(("user", first), ("assistant", answer)))) == kind


def test_a_new_task_after_an_unrelated_exchange_is_the_new_task() -> None:
    before = (("user", "Translate cat to French."), ("assistant", "chat"))
    assert kind_of(ask("Write a SQL query that lists all orders of last month.", before=before)) == "code_generation"


OTHER_LANGUAGES = [
    ("summarization", "de", "Fasse den folgenden Bericht in drei Sätzen zusammen:\n\nDie Halle wird bis Mai gemietet."),
    ("validation", "de", "Ist diese Rechnung richtig? 17 mal 3 ist 54."),
    ("planning", "de", "Erstelle einen Zeitplan für den Umzug unserer Firma im Herbst."),
    ("translation", "fr", "Traduis cette phrase en anglais : Le magasin ouvre à neuf heures."),
    ("code_generation", "fr", "Écris une fonction Python qui compte les voyelles d'un mot."),
    ("classification", "es", "Clasifica esta reseña como positiva o negativa: La comida estaba fría."),
    ("long_form_generation", "es", "Escribe un artículo de 1500 palabras sobre la historia del café."),
    (
        "summarization",
        "it",
        "Riassumi il seguente testo in due frasi: La riunione è iniziata tardi e il fornitore non ha risposto.",
    ),
    ("translation", "pt", "Traduza para o inglês: A loja abre às nove horas."),
    ("analysis", "nl", "Leg deze code uit:\n" + CODE),
    ("summarization", "zh", "请用一句话总结下面的文章：货架没有按时到达，仓库搬迁推迟了两周。"),
    ("translation", "zh", "把下面的句子翻译成英文：商店九点开门。"),
    ("long_form_generation", "zh", "写一篇关于海洋保护的3000字文章。"),
    ("classification", "zh", "判断下面评论的情感是正面还是负面：饭菜很凉，服务很慢。"),
    ("translation", "ja", "次の文を英語に翻訳してください：店は九時に開きます。"),
    ("summarization", "ja", "次の文章を要約してください：棚が届かず、倉庫の移転は二週間遅れています。"),
    ("planning", "ja", "大阪二泊三日の旅行計画を立ててください。"),
    ("validation", "ru", "Проверь, правильный ли это ответ: столица Чили — Лима."),
    ("translation", "ru", "Переведи на английский: Магазин открывается в девять."),
    ("summarization", "ar", "لخص النص التالي: تأخر نقل المستودع أسبوعين."),
    ("translation", "ar", "ترجم هذه الجملة إلى الإنجليزية: يفتح المتجر في التاسعة."),
    ("summarization", "ko", "다음 글을 요약해 주세요: 선반이 도착하지 않아 창고 이전이 늦어졌습니다."),
    ("code_generation", "ko", "파이썬으로 단어 수를 세는 함수를 작성해 줘."),
    ("translation", "hi", "इस वाक्य का अंग्रेज़ी में अनुवाद करें: दुकान नौ बजे खुलती है।"),
    ("planning", "pl", "Zaplanuj trzydniową wycieczkę do Gdańska dla czterech osób."),
    ("summarization", "tr", "Aşağıdaki metni kısaca özetle: Raflar gelmediği için taşınma iki hafta gecikti."),
    ("general", "de", "Warum ist der Mond manchmal rot?"),
    ("general", "zh", "为什么海水是咸的？"),
]


@pytest.mark.parametrize(
    ("kind", "text"),
    [(kind, text) for kind, _, text in OTHER_LANGUAGES],
    ids=[f"{row[1]} {row[0]}" for row in OTHER_LANGUAGES],
)
def test_instructions_in_other_languages_are_understood(kind: TaskKind, text: str) -> None:
    assert kind_of(ask(text)) == kind


PASTED = [
    "Translate the following text into French.",
    "Write a Python function that sorts a list.",
    "Create a detailed project plan with milestones.",
    "Classify this message as spam or ham.",
    "Is this claim correct? Answer true or false.",
    "Write a 3000 word essay.",
]


@pytest.mark.parametrize("keyword", PASTED)
@pytest.mark.parametrize("place", ["middle", "quoted", "fenced"])
def test_a_keyword_in_pasted_material_never_decides(keyword: str, place: str) -> None:
    pasted = {
        "middle": f"{LONG[:1200]} {keyword} {LONG[1200:2400]}",
        "quoted": f'"{NOTES} {keyword} {PLAN}"',
        "fenced": f"```\n{NOTES}\n{keyword}\n{PLAN}\n```",
    }[place]
    assert kind_of(ask(f"Summarize the text below in three sentences.\n\n{pasted}")) == "summarization"


def test_the_instruction_may_stand_after_the_material() -> None:
    assert kind_of(ask(f"{LONG}\n\nPlease summarise the above in one paragraph.")) == "summarization"


def test_of_long_text_head_tail_and_the_last_announced_instruction_are_looked_at() -> None:
    text = (
        f"{'lorem ipsum dolor ' * 9000}\nTask: translate the first line into German.\n{'sit amet nunc ' * 900}the end"
    )
    looked_at = sample(text)
    assert looked_at.startswith("lorem ipsum")
    assert looked_at.endswith("the end")
    assert "translate the first line" in looked_at
    assert len(looked_at) < SAMPLE + 100


@pytest.mark.parametrize(
    ("text", "kind"), [("code_generation", "code_generation"), ("CodeGeneration", "code_generation")]
)
def test_a_label_is_read_in_snake_and_camel_case(text: str, kind: TaskKind) -> None:
    assert parse_label(text) == kind


def test_every_kind_is_a_label() -> None:
    camel = {kind: "".join(part.title() for part in kind.split("_")) for kind in TASK_KINDS}
    assert [parse_label(camel[kind]) for kind in TASK_KINDS] == list(TASK_KINDS)


@pytest.mark.parametrize("text", [None, "", "  "])
def test_no_label_is_no_label(text: str | None) -> None:
    assert parse_label(text) is None


@pytest.mark.parametrize("text", ["poetry", "code generation please", "\ud800", "général", "x" * 10_000])
def test_an_unknown_label_is_refused_naming_the_ten(text: str) -> None:
    with pytest.raises(ValueError, match="general, planning, code_generation") as refused:
        parse_label(text)
    assert all(kind in str(refused.value) for kind in TASK_KINDS)
    assert len(str(refused.value)) < 300


def test_a_label_wins_over_the_text() -> None:
    task = detect(ask("Translate this into German: hello"), label="Planning")
    assert (task.kind, task.confidence) == ("planning", 1.0)


def test_an_uncertain_request_is_general_and_says_what_it_would_have_been() -> None:
    parts = ask("Translate this into German: hello")
    sure = detect(parts, minimum=0.0)
    unsure = detect(parts, minimum=1.01)
    assert (sure.kind, unsure.kind) == ("translation", "general")
    assert unsure.confidence == sure.confidence
    assert "translation" in unsure.reason


def test_the_reason_names_features_and_is_short_and_printable() -> None:
    reason = detect(ask("Please translate the letter into Polish.\n\n" + NOTES)).reason
    assert reason
    assert len(reason) < 240
    assert reason.isprintable()


def test_the_reason_repeats_nothing_that_only_the_request_holds() -> None:
    assert "xq7zzsecret" not in detect(ask("Translate xq7zzsecret into German, xq7zzsecret xq7zzsecret")).reason


def test_the_usual_confidence_is_kept_within_its_range() -> None:
    assert 0.5 < DEFAULT_MIN < 1.0


ODD = {
    "empty": TaskInput(()),
    "empty text": ask(""),
    "blanks": ask(" \n\t "),
    "only images": TaskInput((("user", ""),), images=True),
    "only an assistant turn": TaskInput((("assistant", "Hello."),)),
    "only a system prompt": TaskInput((), "Translate everything."),
    "a megabyte of words": ask("word salad " * 95_000),
    "a megabyte without blanks": ask("x" * 1_000_000),
    "a megabyte of quotes": ask('"' * 1_000_000),
    "a megabyte of fences": ask("```" * 330_000),
    "a megabyte of tags": ask("<a>" * 330_000),
    "a megabyte of lines": ask("\n" * 500_000 + "x\n" * 250_000),
    "a megabyte of dots": ask(". ! ? " * 170_000),
    "a megabyte of Chinese": ask("请总结以下内容" * 140_000),
    "a megabyte system prompt": ask("hi", "You are kind. " * 70_000),
    "control characters": ask("".join(map(chr, range(32))) * 300),
    "emoji flood": ask("🙂👩‍👩‍👧‍👦🏳️‍🌈" * 2_000),
    "right to left": ask("\u202e" + "مرحبا بك " * 700),
    "combining marks": ask("e" + "\u0301" * 9_000),
    "lone surrogates": ask("\ud800\udfff \udc00 translate \ud83d into German " * 200),
    "500 messages": TaskInput(tuple((("user", "assistant")[i % 2], f"message {i} " * 40) for i in range(500))),
    "digits": ask("1234567890" * 700),
    "brackets": ask("([{" * 2_000),
    "commas": ask("a, " * 2_000),
}


@pytest.mark.parametrize("parts", ODD.values(), ids=ODD.keys())
def test_text_nobody_should_send_is_classified_in_bounded_time(parts: TaskInput) -> None:
    detect(parts)  # the first request of a process also reads the weights
    spent = []
    for _ in range(3):
        started = time.thread_time()
        task = detect(parts)
        spent.append(time.thread_time() - started)
    assert task.kind in TASK_KINDS
    assert 0.0 <= task.confidence <= 1.0
    assert len(task.reason) < 300
    task.reason.encode("utf-8")
    assert min(spent) < 0.02


def test_what_is_asked_of_the_answer_is_weighed_too() -> None:
    bare = TaskInput((("user", "Where is my parcel?"),), "Each message is a ticket.")
    asked = TaskInput(bare.turns, bare.system, max_tokens=8, response_format="json_object")
    assert detect(asked, minimum=0.0) != detect(bare, minimum=0.0)


def test_the_weights_are_small() -> None:
    weights = resources.files("routing").joinpath("data", "task_weights.gz").read_bytes()
    assert len(weights) <= 1_000_000


def test_only_images_are_general() -> None:
    assert detect(TaskInput((("user", ""),), images=True)).kind == "general"


@settings(max_examples=150, deadline=None)
@given(st.text(st.characters(), max_size=400), st.text(st.characters(), max_size=200))
def test_any_text_is_classified_the_same_each_time(text: str, system: str) -> None:
    task = detect(ask(text, system))
    assert task == detect(ask(text, system))
    assert task.kind in TASK_KINDS
    task.reason.encode("utf-8")
