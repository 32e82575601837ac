"""What the study measures of one SAE."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from multitool.errors import UserError
from multitool.evidence.verdicts import DEFINITIONS_JUDGED, DefinitionScores, definition_scores, tree_verdict
from multitool.jobs.candidates import COMPONENTS, PUBLISHED, RANDOM, SCALES, WEIGHTS, Candidate, candidates_for
from multitool.jobs.check import RANDOM_GHOSTS
from multitool.jobs.features import ScannedSource, heading_of, resolve, scanned_sources, vector_of
from multitool.jobs.judging import (
    Controls,
    ReadText,
    activations_on,
    ask_task,
    control_features,
    cosine,
    judged_texts,
    lifts_of,
    mean_lifts,
    random_ghosts,
    read_definitions,
    read_judged,
    scores_of,
    small_recipe,
    tokens_in_texts,
)
from multitool.jobs.local import finish
from multitool.jobs.steering import interventions
from multitool.jobs.trials import DEFINITIONS_TRIED, Judge, control_task, place_score, prepare_features
from multitool.model.ghost_prompt import ghost_prompt
from multitool.model.interventions import Interventions
from multitool.model.questions import text_of
from multitool.model.tasks import Asked, Checked, CheckTask, Place, ReadTask, Task, Text, growth_task
from multitool.recipes.directions import DIRECTIONS, unit
from multitool.recipes.prompts import PROMPTS
from multitool.recipes.recipe import TreeRecipe, VectorRecipe
from multitool.store.library import Library
from multitool.trees.tree import NO_TREE, ROOT, Tree, definitions
from multitool.vectors.ranking import token_scores
from multitool.vectors.vector import FeatureVector, Heading, combined, placed
from scripts.study_records import CHOSEN_BY, LIST_SCALES, ONE_TOKEN, Records, chosen, separated, settings_chosen_from

# Features that are measured together before anything is written, and ghosts that answer together; bound the memory.
FEATURES_AT_ONCE = {"cpu": 16, "cuda": 100}
GHOSTS_AT_ONCE = {"cpu": 64, "cuda": 512}
SMALL = small_recipe(TreeRecipe())
# A tree with more definitions than are judged, for what is read off it to make a difference.
READ_OUT_TREE: dict[str, Any] = {"cutoff": 1e-3, "max_depth": 12, "max_nodes": 150}
READ_OUTS = ("probability", "lift", "lift per token")
READ_OUT_PROMPTS = ("definition", "meaning", "synonym", "chat-meaning")  # those with the best definitions in trials
FEW = 100  # held-out features whose real token is put into all prompts
# Directions halfway between two kinds, which the tool does not offer: whether they would be worth it.
MIXES = {f"pullback and {other}": ("pullback", other) for other in ("vocabulary", "decoder")}
_RIDGE = 0.1  # of the direction that separates the judged tokens, in units of the embeddings' mean variance


@dataclass(frozen=True)
class Tried:
    """A setting tried on a feature, with its vector."""

    setting: str
    source: ScannedSource
    vector: FeatureVector


class Bench:
    """An SAE, and what is measured of it. Each measurement writes what is missing of it."""

    def __init__(self, library: Library, sae: str, features: Sequence[int], records: Records):
        self.library, self.records = library, records
        target = resolve(library, VectorRecipe(sae=sae, feature=0))
        self.subject, self.entry = target.subject, target.sae.entry
        # Once for all: the whole scan is read for it.
        controls = control_features(target.sae)
        every = [*features, *controls]
        self._defaults = [Candidate(weights, DIRECTIONS[weights].relative_scale)
                          for weights in (self.entry.list_weights, self.entry.default_weights)]
        tried = [*candidates_for(self.entry, self.subject), *self._defaults]
        self.target = finish(prepare_features(target, every, tried), library)
        self.sources = {source.index: source for source in scanned_sources(self.target, self.target.sae, every)}
        self.controls = [self.sources[feature] for feature in controls]
        self.encoder = library.encoder(self.entry)
        self.at_once = FEATURES_AT_ONCE[library.device]
        self.few = frozenset(features[-records.head["held_out"] :][:FEW])
        self._judge: Callable[[str], Judge] = cache(self._new_judge)
        self._controls: Callable[[str], Controls] = cache(self._new_controls)
        self._control_read_outs = cache(lambda prompt: self._read_out(self.controls, prompt))
        self._can_chat = bool(self.subject.tokenizer.chat_template)

    # What is tried

    @cached_property
    def candidates(self) -> dict[str, Candidate]:
        """All that may be tried, by their names."""
        lists = [Candidate(weights, scale, pca)
                 for weights in self._kinds for scale in LIST_SCALES for pca in COMPONENTS
                 if not pca or scale in SCALES]
        mixed = [Candidate(mix, scale) for mix in self._mixes for scale in sorted({*LIST_SCALES, *SCALES})]
        known = (*lists, *mixed, *candidates_for(self.entry, self.subject), *self._defaults, RANDOM)
        return {str(one): one for one in known}

    @cached_property
    def _kinds(self) -> list[str]:
        there = {candidate.weights for candidate in candidates_for(self.entry, self.subject)}
        return [kind for kind in WEIGHTS if kind in there]

    @cached_property
    def _mixes(self) -> list[str]:
        return [mix for mix, (one, _) in MIXES.items() if one in self._kinds]

    def list_settings(self) -> list[str]:
        scales = {*LIST_SCALES, *(one.relative_scale for one in self._defaults)}
        return [name for name, one in self.candidates.items() if one.inject_layer < 0 and one.relative_scale in scales]

    def tree_settings(self) -> list[str]:
        mixed = [Candidate(mix, scale) for mix in self._mixes for scale in SCALES]
        return [*map(str, (*candidates_for(self.entry, self.subject), *mixed, RANDOM))]

    @property
    def best_tree(self) -> str:
        """What the choosing features like best for trees."""
        return chosen(self.records, "trees")

    def compared(self, what: str) -> list[str]:
        """The best of each kind of weights and of those injected, the default, the published, and chance.

        Args:
            what: lists or trees.
        """
        kinds: dict[str, list[str]] = {}
        for name in settings_chosen_from(self.records, what):
            one = self.candidates[name]
            kinds.setdefault("injected" if one.inject_layer >= 0 else one.weights, []).append(name)
        best = [self.records.best(f"choose {what}", CHOSEN_BY[what], names) for names in kinds.values()]
        head = self.records.head
        return list(dict.fromkeys([*head["published"], head["default"][what], *best, str(RANDOM)]))

    def vector(self, setting: str, source: ScannedSource) -> FeatureVector | None:
        """None where the setting gives the feature none."""
        space = self.subject.space
        if setting == ONE_TOKEN:
            if not len(source.strongest_ids):
                return None
            row = space.E[source.strongest_ids[0]].float() - space.centroid
            return placed(Heading(unit(row), float(row.norm())), space)
        made = self.candidates[setting]
        try:
            if made.weights not in MIXES:
                return vector_of(source, self.subject, made.of(self.target.recipe, self.subject))
            parts = [heading_of(source, self.subject, self.target.recipe.by(kind)) for kind in MIXES[made.weights]]
        except UserError:  # no token fires it
            return None
        return placed(combined(parts, [0.5, 0.5]), space, scale=made.relative_scale * space.mean_distance)

    # Lists

    def lists(self, part: str, settings: Sequence[str], features: Sequence[int]) -> None:
        for source in self._sources(features):
            vectors = {name: self.vector(name, source) for name in settings
                       if not self.records.has(part, name, source.index)}
            self._listed(part, source, {name: vector.v if vector else None for name, vector in vectors.items()})

    def bounds(self, part: str, features: Sequence[int]) -> None:
        """How well a direction does that is made from the very tokens it is judged on."""
        for source in self._sources(features):
            missing = [scale for scale in LIST_SCALES if not self.records.has(part, separated(scale), source.index)]
            if missing:
                f, space = self._separating(source), self.subject.space
                self._listed(part, source, {
                    separated(scale): None if f is None else space.centroid + scale * space.mean_distance * f
                    for scale in missing
                })

    def _listed(self, part: str, source: ScannedSource, vs: dict[str, Tensor | None]) -> None:
        there = {name: v for name, v in vs.items() if v is not None}
        rows: list[tuple[str, int, dict | None]] = [(name, source.index, None) for name in vs if name not in there]
        in_texts = tokens_in_texts(self.target.sae, self.subject, source.index)
        if there:
            halves = (0, 1) if part.startswith("choose") else (1,)  # where features choose, all tokens do
            judged = self._judge("definition").lists(source, torch.stack(list(there.values())), in_texts, halves)
            for name, listed in zip(there, judged, strict=True):
                precision, area = (mean_known([half[n] for half in listed.halves]) for n in (0, 1))
                in_text = None if listed.text_rank is None else float(listed.text_rank <= 10)
                rows.append((name, source.index,
                             {"list AP": precision, "list AUROC": area, "text tokens@10": in_text}))
        self.records.add(part, rows)

    @cached_property
    def _unspread(self) -> Tensor:
        """The inverse of the embeddings' covariance with a ridge: (d_model, d_model)."""
        space = self.subject.space
        centred = space.E.float() - space.centroid
        covariance = centred.T @ centred / space.n_tokens
        return torch.linalg.inv(covariance + _RIDGE * covariance.diagonal().mean() * torch.eye(space.d_model))

    def _separating(self, source: ScannedSource) -> Tensor | None:
        """The direction in which the tokens that fire the feature lie apart from the others (Fisher's discriminant)."""
        space, fires = self.subject.space, (source.activations > 0) & source.countable
        if not fires.any():
            return None
        return unit(self._unspread @ (space.E[fires].float().mean(0) - space.centroid))

    # Trees

    def trees(self, part: str, settings: Sequence[str], features: Sequence[int]) -> None:
        """The definitions that settings give, judged as a suggestion judges them; on held-out features of the most
        important ones the evidence of the tree as a whole too, and what a real token in the ghost's place gives."""
        held_out, verdicts = part == "trees", []
        if held_out:
            head = self.records.head
            verdicts = list(dict.fromkeys([head["published"][0], head["default"]["trees"], self.best_tree, ONE_TOKEN]))
            settings = [*settings, ONE_TOKEN]
        tried = self._tried(part, settings, features, also=dict.fromkeys(verdicts, "verdicts"))
        answers = self._answers(tried, TreeRecipe())
        self._judged(part, tried, answers, "definition")
        for name in verdicts:
            self._verdicts(name, [(one, answer) for one, answer in zip(tried, answers, strict=True)
                                  if one.setting == name])

    def prompts(self, features: Sequence[int]) -> None:
        """The best direction for trees, and a real token, in every other prompt of the menu than the default."""
        for prompt, asked in PROMPTS.items():
            if prompt == "definition" or asked.chat and not self._can_chat:
                continue
            own = self._tried("prompts", [self.best_tree], features, named=prompt)
            few = [feature for feature in features if feature in self.few]
            real = self._tried("prompts of a token", [ONE_TOKEN], few, named=prompt)
            answers = self._answers([*own, *real], TreeRecipe(prompt=prompt))
            for part, tried, answered in (("prompts", own, answers[: len(own)]),
                                          ("prompts of a token", real, answers[len(own) :])):
                self._judged(part, [replace(one, setting=prompt) for one in tried], answered, prompt)

    def _tried(
        self, part: str, settings: Sequence[str], features: Sequence[int], *, named: str = "",
        also: dict[str, str] | None = None,
    ) -> list[Tried]:
        """What is missing of a part, or of another one (``also``, by setting); noted where there is no vector."""
        tried, rows = [], []
        for source in self._sources(features):
            for setting in settings:
                places = [part, *filter(None, [(also or {}).get(setting)])]
                if all(self.records.has(place, named or setting, source.index) for place in places):
                    continue
                vector = self.vector(setting, source)
                if vector is None:
                    rows += [(place, named or setting, source.index) for place in places]
                else:
                    tried.append(Tried(setting, source, vector))
        for place, setting, feature in rows:
            self.records.add(place, [(setting, feature, None)])
        return tried

    def _answers(self, tried: Sequence[Tried], recipe: TreeRecipe) -> list[Asked]:
        """What the model says of each; those that are injected alike are asked together."""
        groups: dict[tuple, list[int]] = {}
        for number, one in enumerate(tried):
            groups.setdefault(tuple(self._candidate(one.setting).injection.values()), []).append(number)
        found: dict[int, Asked] = {}
        for numbers in groups.values():
            wanted = self._interventions(tried[numbers[0]].setting)
            vectors = [tried[number].vector for number in numbers]
            vs = torch.stack([vector.direction if wanted else vector.v for vector in vectors])
            found |= zip(numbers, self._ask(vs, recipe, wanted), strict=True)
        return [found[number] for number in range(len(tried))]

    def _candidate(self, setting: str) -> Candidate:
        return self.candidates.get(setting, PUBLISHED[0])

    def _interventions(self, setting: str) -> Interventions | None:
        return interventions(self.target, self._candidate(setting).growth(SMALL))

    def _judged(self, part: str, tried: Sequence[Tried], answers: Sequence[Asked], prompt: str) -> None:
        judge, d_sae = self._judge(prompt), self.encoder.d_sae
        by_feature: dict[int, list[tuple[Tried, Asked]]] = {}
        for one, answer in zip(tried, answers, strict=True):
            by_feature.setdefault(one.source.index, []).append((one, answer))
        rows = []
        for feature, group in by_feature.items():
            source = group[0][0].source
            others = judge.others(source)
            own = iter(judge.own(source, read_definitions(self.encoder, [feature] * len(group), [a for _, a in group])))
            for one, answer in group:
                texts = np.array([next(own) for _ in answer.texts]).reshape(-1, d_sae)
                # On features that choose both halves of the definitions do.
                halves = [texts[::2], texts[1::2]] if part.startswith("choose") else [texts[1::2]]
                judged = [definition_scores(half, others, feature) for half in halves if len(half)]
                rows.append((one.setting, feature, definition_figures(judged, d_sae)))
        self.records.add(part, rows)

    def _verdicts(self, setting: str, tried: Sequence[tuple[Tried, Asked]]) -> None:
        """The evidence of whole trees, as ``check_tree`` judges them."""
        if not tried:
            return
        wanted = self._interventions(setting)
        controls, randoms = self._controls(setting), random_ghosts(
            self.subject, tried[0][0].vector.distance_from_centroid, RANDOM_GHOSTS
        )
        # All trees in one: what they share is run once. The controls are the same ghosts for all.
        all_nodes, places = joined([answer.tree for _, answer in tried])
        others = self._held_against(self.subject.space.centroid, randoms, all_nodes)
        entropies = self._entropies([one.vector for one, _ in tried], wanted)
        rows = []
        for (one, answer), nodes, entropy in zip(tried, places, entropies, strict=True):
            source, verdict, figures = one.source, "unknown", {}
            own = list(read_judged(self.encoder, [source.index], [answer], self.subject.token_texts))
            made_from = self._made_from(setting, source)
            scores = scores_of(source.index, own, controls, made_from)
            if scores:
                fires_at_all = float(np.mean([text.fires[:, source.index].max() > 0 for text in own]))
                verdict = tree_verdict(scores, fires_at_all, int(made_from.sum()))
                tree = answer.tree.spelled(self.subject.token_texts)
                tree = replace(tree, lifts=lifts_of(np.log(tree.cumulative_prob), others.log_probs[:, nodes]))
                lifts = mean_lifts(tree, [one.node for one in definitions(tree, DEFINITIONS_JUDGED)])
                figures = {"hit rate": scores.hit_rate, "fires at all": fires_at_all, "entropy": entropy,
                           "centroid's entropy": float(others.entropies[0]), "lift, centroid": float(lifts[0]),
                           "lift, random": float(lifts[1])}
            rows.append((setting, source.index, {"verdict": verdict} | figures))
        self.records.add("verdicts", rows)

    def _made_from(self, setting: str, source: ScannedSource) -> np.ndarray:
        made_from = np.zeros(self.subject.space.n_tokens, dtype=bool)
        if setting == ONE_TOKEN:
            made_from[source.strongest_ids[0]] = True
            return made_from
        weights = self._candidate(setting).weights
        for kind in MIXES.get(weights, (weights,)):
            made_from |= source.used_in_texts(self.target.recipe.by(kind), self.subject)
        return made_from

    def _entropies(self, vectors: Sequence[FeatureVector], wanted: Interventions | None) -> list[float]:
        """Of the first token of each."""
        if wanted is None:
            vs = torch.stack([vector.v for vector in vectors])
            return self._held_against(vs[0], vs[1:], NO_TREE).entropies.tolist()
        # Of an injected vector the others that it is held against stand among the embeddings: so each for itself.
        centroid = self.subject.space.centroid[None]
        return [float(self._held_against(vector.direction, centroid, NO_TREE, wanted).entropies[0])
                for vector in vectors]

    # What is read off a tree

    def read_outs(self, features: Sequence[int]) -> None:
        """Of a larger tree by the best direction, the definitions that are first by probability, and by lift."""
        for prompt in READ_OUT_PROMPTS:
            if PROMPTS[prompt].chat and not self._can_chat:
                continue
            names = {by: f"{prompt}, by {by}" for by in READ_OUTS}
            missing = [feature for feature in features
                       if not all(self.records.has("read-outs", name, feature) for name in names.values())]
            own = self._read_out(self._sources(missing), prompt)
            rows: list[tuple[str, int, dict | None]] = [
                (name, feature, None) for name in names.values() for feature in missing if feature not in own
            ]
            controls = {
                by: Controls(text for read in self._control_read_outs(prompt).values() for text in read[by])
                for by in READ_OUTS
            }
            for feature, listed in own.items():
                used = self._judge("definition").used(self.sources[feature])
                for by, said in listed.items():
                    scores = scores_of(feature, said, controls[by], used)
                    figures = definition_figures([scores] if scores else [], self.encoder.d_sae)
                    rows.append((names[by], feature, figures))
            self.records.add("read-outs", rows)

    def _read_out(self, sources: Sequence[ScannedSource], prompt: str) -> dict[int, dict[str, list[ReadText]]]:
        """The first definitions of each feature, and what fires on them, by how they are ordered."""
        vectors = [(source, self.vector(self.best_tree, source)) for source in sources]
        tried = [Tried(self.best_tree, source, vector) for source, vector in vectors if vector]
        if not tried:
            return {}
        wanted, subject, recipe = self._interventions(self.best_tree), self.subject, TreeRecipe(prompt=prompt)
        vs = torch.stack([one.vector.direction if wanted else one.vector.v for one in tried])
        trees = [answer.tree for answer in self._ask(vs, recipe, wanted, grown=True)]
        all_nodes, places = joined(trees)
        randoms = random_ghosts(subject, tried[0].vector.distance_from_centroid, RANDOM_GHOSTS)
        others = self._held_against(subject.space.centroid, randoms, all_nodes, recipe=recipe)
        texts_of: dict[int, dict[str, list[Text]]] = {}
        for one, tree, nodes in zip(tried, trees, places, strict=True):
            tree = replace(tree, lifts=lifts_of(np.log(tree.cumulative_prob), others.log_probs[:, nodes]))
            orders = dict(zip(READ_OUTS, (tree.cumulative_prob, tree.lift, tree.lift_per_token), strict=True))
            texts_of[one.source.index] = {
                name: [text for text, _ in judged_texts(ordered_texts(tree, fit), subject.token_texts)]
                for name, fit in orders.items() if fit is not None
            }
        texts = list(dict.fromkeys(text for by in texts_of.values() for listed in by.values() for text in listed))
        residuals, = self._do(ReadTask(**self._given, texts=texts))
        rows = dict(zip(texts, residuals, strict=True))
        return {
            feature: {
                name: [ReadText(feature, text, fires) for text, fires in
                       zip(listed, activations_on(self.encoder, [rows[text] for text in listed]), strict=True)]
                for name, listed in by.items()
            }
            for feature, by in texts_of.items()
        }

    # Features

    def facts(self, features: Sequence[int]) -> None:
        """What kind of feature it is, as far as single tokens tell."""
        missing = [source for source in self._sources(features)
                   if not self.records.has("features", "all", source.index)]
        alive = [source for source in missing if len(source.strongest_ids)]
        prompt = ghost_prompt(self.subject, TreeRecipe().prompt, 1)
        token_ids = [int(source.strongest_ids[0]) for source in alive]
        ids = prompt.token_ids
        texts = [(*ids[: prompt.position], token_id, *ids[prompt.position + 1 :]) for token_id in token_ids]
        fires = {}
        if texts:
            residuals, = self._do(ReadTask(**self._given, texts=texts))
            rows = torch.from_numpy(np.stack([read[prompt.position] for read in residuals]))
            found = self.encoder.encode(rows).numpy()
            fires = {source.index: bool(row[source.index] > 0) for source, row in zip(alive, found, strict=True)}
        self.records.add("features", [
            ("all", source.index, self._facts(source) | {"fires in the prompt": fires.get(source.index)})
            for source in missing
        ])

    def _facts(self, source: ScannedSource) -> dict:
        subject, weights = self.subject, source.weights
        strongest = subject.token_texts[int(source.strongest_ids[0])] if len(source.strongest_ids) else None
        plain = [self.vector(str(one), source) for one in PUBLISHED]
        shared = None
        if all(plain):
            scores = token_scores(subject.space, torch.stack([vector.v for vector in plain if vector]))
            first, second = (set(np.argpartition(row, 100)[:100].tolist()) for row in scores)
            shared = len(first & second)
        return {
            "firing tokens": int(((source.activations > 0) & source.countable).sum()),
            "strongest": strongest, "kind": None if strongest is None else kind_of(strongest, subject.token_ids),
            "cosine": cosine(weights.encoder.numpy(), weights.decoder.numpy()), "shared": shared,
        }

    # The model

    def _sources(self, features: Iterable[int]) -> list[ScannedSource]:
        return [self.sources[feature] for feature in features]

    @property
    def _given(self) -> dict[str, Any]:
        place = Place(self.entry.hook, self.subject.bos_id)
        return {"model": self.subject.name, "folder": self.subject.folder, "place": place}

    def _do(self, task: Task) -> list:
        return list(self.library.do(task))

    def _ask(
        self, vs: Tensor, recipe: TreeRecipe, wanted: Interventions | None = None, *, grown: bool = False
    ) -> list[Asked]:
        """What the model says of ghosts, on small trees; or larger trees, whose definitions are not read."""
        task = ask_task(self.target, vs, small_recipe(recipe), DEFINITIONS_TRIED, wanted)
        task = replace(task, at_once=GHOSTS_AT_ONCE[self.library.device])
        if grown:
            growth = growth_task(self.subject, vs, replace(recipe, **READ_OUT_TREE), interventions=wanted)
            task = replace(task, growth=growth, n_definitions=0)
        return [answer for part in self._do(task) for answer in part]

    def _held_against(
        self, first: Tensor, others: Tensor, tree: Tree, wanted: Interventions | None = None,
        recipe: TreeRecipe = SMALL,
    ) -> Checked:
        growth = growth_task(self.subject, first, replace(recipe, max_depth=SMALL.max_depth), interventions=wanted)
        checked, = self._do(CheckTask(**self._given, growth=growth, tree=tree, controls=others.numpy(), texts=[]))
        return checked

    def _new_judge(self, prompt: str) -> Judge:
        controls, task = finish(control_task(self.target, TreeRecipe(prompt=prompt)), self.library)
        return Judge(self.target, controls, [answer for part in self._do(task) for answer in part])

    def _new_controls(self, setting: str) -> Controls:
        """Other features' definitions by a setting, those that are judged."""
        made = self.records.head["default"]["trees"] if setting == ONE_TOKEN else setting
        vectors = [(source.index, self.vector(made, source)) for source in self.controls]
        there = {feature: vector.v for feature, vector in vectors if vector}
        asked = self._ask(torch.stack(list(there.values())), TreeRecipe())
        return Controls(read_judged(self.encoder, list(there), asked, self.subject.token_texts))


def mean_known(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def definition_figures(judged: Sequence[DefinitionScores], d_sae: int) -> dict[str, float]:
    """Of one half of the definitions, or the means of both; of none what says nothing."""
    ranks = [scores.rank for scores in judged] or [(d_sae + 1) / 2]
    return {
        "hit rate": float(np.mean([scores.hit_rate for scores in judged] or [0.0])),
        "AUROC": float(np.mean([scores.auroc for scores in judged] or [0.5])),
        "MRR": float(np.mean([1 / rank for rank in ranks])),
        "recall@10": float(np.mean([rank <= 10 for rank in ranks])),
        "found": float(np.mean([place_score(rank, d_sae) for rank in ranks])) if judged else 0.0,
    }


def ordered_texts(tree: Tree, fit: np.ndarray) -> list[Text]:
    """The definitions as token ids, the largest first; what several tokens end stands where the best of them does."""
    leaves = np.flatnonzero(tree.is_leaf | tree.end)
    ordered = [text_of(tree, leaf) for leaf in leaves[np.argsort(-fit[leaves], kind="stable")].tolist()]
    return list(dict.fromkeys(text for text in ordered if text))


def kind_of(token: str, token_ids: dict[str, int]) -> str:
    """Whether a token is a function word, another word, or something else, a fragment of a word for instance."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    word = token.strip()
    if word.lower() in ENGLISH_STOP_WORDS:
        return "function word"
    whole = token.startswith(" ") or any(" " + form in token_ids for form in (word, word.lower(), word.capitalize()))
    return "word" if word.isalpha() and len(word) > 1 and whole else "fragment or sign"


def joined(trees: list[Tree]) -> tuple[Tree, list[np.ndarray]]:
    """One tree that holds the paths of all (its probabilities mean nothing), and where each one's nodes are in it."""
    index: dict[tuple[int, int], int] = {}  # by parent and token
    places = []
    for tree in trees:
        place = np.empty(len(tree) + 1, dtype=np.int64)
        place[ROOT] = ROOT
        for node, (parent, token_id) in enumerate(zip(tree.parent, tree.token_id.tolist(), strict=True)):
            place[node] = index.setdefault((int(place[parent]), token_id), len(index))
        places.append(place[:-1])
    n = len(index)
    parent, token_id = np.array(list(index), dtype=np.int64).reshape(n, 2).T
    empty = np.zeros(n)
    return Tree(parent, token_id, ("",) * n, empty, empty, empty.astype(bool)), places
