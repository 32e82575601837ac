"""Continuations from recipe to result: what is pushed and spared, what is told, what is refused."""

import json

import numpy as np
import pytest
import torch
from tiny import random_sae, tiny_model, write_model, write_sae

from multitool.errors import UserError
from multitool.jobs import continuation
from multitool.jobs.continuation import steer_job
from multitool.jobs.features import resolve
from multitool.jobs.local import continuations, finish, stream
from multitool.jobs.steering import prose
from multitool.jobs.steps import Grow
from multitool.model.interventions import mean_residual_norm
from multitool.recipes.continuation import SteerRecipe
from multitool.recipes.recipe import VectorRecipe
from multitool.store.library import Library

HOOK, LATER = "blocks.0.hook_resid_post", "blocks.1.hook_resid_post"
ASKED = SteerRecipe(text="A dog is", strengths=(-2.0, 3.0), length=5)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAE_MULTITOOL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield Library(dtype="float32", device="cpu", allow_folder=True)


@pytest.fixture(scope="module")
def saes(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("folders")
    model = str(write_model(folder / "model", tiny_model("llama"), tokenizer))
    return {hook: str(random_sae(folder / hook, 32, 30, hook=hook, model=model)) for hook in (HOOK, LATER)}


def vector(saes, feature=2) -> VectorRecipe:
    return VectorRecipe(sae=saes[HOOK], feature=feature)


def asked_of_the_model(library, vector, recipe):
    """The task that the job hands out."""
    job, answer = steer_job(library, vector, recipe), None
    while not isinstance(step := job.send(answer), Grow):
        answer = step.work()
    return step.task


def test_the_decoder_is_pushed_along_at_every_position_but_the_first_and_special_ones(library, saes):
    target = resolve(library, vector(saes))
    subject, recipe = target.subject, SteerRecipe(text="A dog<|endoftext|> is", strengths=(0.5,))
    task = asked_of_the_model(library, vector(saes), recipe)
    special = subject.tokenizer.eos_token_id
    assert task.token_ids[0] == subject.bos_id == special
    assert task.spared == (0, task.token_ids.index(special, 1))
    assert task.strengths == (0.0, 0.5)
    (push,) = task.pushes
    W_dec = target.sae.W_dec[2]
    assert push.hook == HOOK and push.strength == 1
    assert np.allclose(push.direction, W_dec / W_dec.norm(), atol=1e-6)
    assert special in task.end_ids and (task.prose, task.hook) == (prose(subject), HOOK)


def test_several_features_are_pushed_along_each_at_its_own_hook_by_its_weight(library, saes):
    several = VectorRecipe(sae=saes[HOOK], feature=f"2*0.5 + {saes[LATER]}:3*-1")
    task = asked_of_the_model(library, several, ASKED)
    assert [(push.hook, push.strength) for push in task.pushes] == [(HOOK, 0.5), (LATER, -1.0)]
    found = continuations(library, several, ASKED)
    assert all(one.activations is None for one in found.continuations)  # nothing is known of what fires a sum
    assert set(found.norms) == {HOOK, LATER}


def test_the_result_holds_texts_figures_and_what_fires(library, saes):
    found = continuations(library, vector(saes), ASKED)
    assert found.complete and [one.strength for one in found.continuations] == [0, -2, 3]
    assert len({one.text for one in found.continuations}) > 1
    target = resolve(library, vector(saes))
    model = library.run(target.subject.name, target.subject.folder)
    assert found.norms == {HOOK: pytest.approx(mean_residual_norm(model, HOOK, prose(target.subject)))}
    before = asked_of_the_model(library, vector(saes), ASKED).token_ids
    for one in found.continuations:
        assert one.text == "".join(target.subject.token_texts[token_id] for token_id in one.token_ids)
        with torch.no_grad():
            output = model(torch.tensor([before + one.token_ids]), output_hidden_states=True)
        said = output.logits[0].log_softmax(dim=-1)[len(before) - 1 : -1]
        expected = said[torch.arange(len(one.token_ids)), list(one.token_ids)].mean()
        assert one.log_probability == pytest.approx(float(expected), abs=1e-4)
        # With biases of 0, an activation is max(0, x · W_enc[:, i]).
        fires = (output.hidden_states[1][0, len(before):] @ target.sae.W_enc[:, 2]).clamp(min=0)
        assert one.activations == pytest.approx(fires.tolist(), abs=1e-3)
    told = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert told["schema"] == "sae-multitool/continuations/1"
    assert told["continuations"][1]["strength"] == -2 and told["continuations"][0]["tokens"]
    assert told["settings"] | {"model": "", "sae": "", "version": ""} == {
        "model": "", "sae": "", "feature": 2, "text": "A dog is", "strengths": [-2, 3], "length": 5,
        "temperature": 0, "seed": 0, "dtype": "float32", "version": "",
    }
    assert "A dog is" in found._repr_html_()


def test_what_is_written_is_told_while_it_is(library, saes):
    steps = list(stream(steer_job(library, vector(saes), ASKED), library))
    assert [max(len(one.tokens) for one in found.continuations) for found in steps] == [1, 2, 3, 4, 5, 5]
    assert [found.complete for found in steps] == [False] * 5 + [True]
    assert steps[0].continuations[0].log_probability is None and steps[-1].continuations[0].repetition == 0


def test_an_sae_whose_activations_cannot_be_read_steers_all_the_same(library, saes, monkeypatch):
    def refuses(_):
        raise UserError("not to be read")

    plain = continuations(library, vector(saes), ASKED)
    monkeypatch.setattr(library, "encoder", refuses)
    found = continuations(library, vector(saes), ASKED)
    assert [one.text for one in found.continuations] == [one.text for one in plain.continuations]
    assert found.continuations[0].activations is None


def test_what_cannot_be_continued_is_refused(library, saes, tmp_path):
    with pytest.raises(UserError, match="The text has 250 tokens; with 20 more that is beyond the 256"):
        continuations(library, vector(saes), SteerRecipe(text="\x01" * 250, length=20))
    with pytest.raises(UserError, match="The text is empty"):
        continuations(library, vector(saes), SteerRecipe(text=" "))
    W = torch.ones(32, 2)
    model = library.find(saes[HOOK]).model
    dead = write_sae(tmp_path / "dead", W_enc=W, W_dec=torch.zeros(2, 32), hook=HOOK, model=model)
    with pytest.raises(UserError, match="no direction to steer in .a dead feature\\?.. Use another one"):
        continuations(library, VectorRecipe(sae=str(dead), feature=0), ASKED)


@pytest.mark.parametrize("wrong, sentence", [
    ({"text": ""}, "text is ''; it must be a text of 1 to 20,000 characters"),
    ({"strengths": ()}, "strengths is \\(\\); it must be a list of 1 to 8 numbers"),
    ({"strengths": (0.1,) * 9}, "it must be a list of 1 to 8 numbers within ±100"),
    ({"strengths": ("much",)}, "a strength in strengths is 'much'; it must be a number within ±100"),
    ({"length": 0}, "length is 0; it must be a whole number from 1 to 200"),
    ({"temperature": -1}, "temperature is -1; it must be a number from 0 to 5"),
    ({"seed": -1}, "seed is -1; it must be a whole number from 0"),
])
def test_what_cannot_be_asked_is_refused_in_a_sentence(wrong, sentence):
    with pytest.raises(UserError, match=sentence):
        SteerRecipe(**wrong)


def test_a_text_shows_what_breaks_it(monkeypatch, library, saes):
    monkeypatch.setattr(continuation, "repetition", lambda ids: 0.9)
    first, *others = continuations(library, vector(saes), ASKED).continuations
    assert first.caution == "It repeats itself."
    assert all(one.caution.startswith("It repeats itself, as the unsteered text does.") for one in others)


def test_an_own_sampling_is_the_same_again(library, saes):
    drawn = SteerRecipe(text="A dog is", strengths=(1.0,), length=6, temperature=1.0, seed=3)
    texts = [[one.text for one in continuations(library, vector(saes), drawn).continuations] for _ in range(2)]
    assert texts[0] == texts[1]
    assert finish(steer_job(library, vector(saes), drawn), library).settings["seed"] == 3
