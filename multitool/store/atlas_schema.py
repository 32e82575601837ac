"""The columns of an atlas, a table with a row for every feature and setting. Only the files of atlases know pyarrow."""

import pyarrow as pa

SCHEMA = "sae-multitool/atlas/1"
METADATA = b"sae-multitool"  # where a file's metadata keep what ``atlas_files.AtlasPlan`` tells, as JSON

_DEFINITION = pa.struct({
    "text": pa.string(),
    "probability": pa.float64(),
    "lift_centroid": pa.float32(),  # nats, of the whole path; this and what follows null without evidence
    "lift_random": pa.float32(),
    "activation": pa.float32(),  # the feature's largest on it
})
_TOKEN = pa.struct({"token": pa.string(), "token_id": pa.int32(), "score": pa.float32()})
_STRONGEST = pa.struct({"token": pa.string(), "token_id": pa.int32(), "activation": pa.float32()})
_TREE = pa.struct({  # a list per column of ``trees.tree.Tree``, in its order
    "parent": pa.list_(pa.int32()),
    "token_id": pa.list_(pa.int32()),
    "token": pa.list_(pa.string()),
    "prob": pa.list_(pa.float64()),
    "cumulative_prob": pa.list_(pa.float64()),
    "end": pa.list_(pa.bool_()),
    "beyond": pa.list_(pa.float64()),  # one more than the others: the root's stands last
})

COLUMNS = pa.schema({
    "sae": pa.string(),
    "feature": pa.int32(),
    "setting": pa.int16(),  # which of the metadata's settings
    "weights": pa.string(),  # of the tree's vector
    "problem": pa.string(),  # why there is no tree, in a sentence; all that follows is null then
    "scale": pa.float64(),
    "norm": pa.float64(),  # of the vector; of an injected one in mean residual norms
    "distance_from_centroid": pa.float64(),  # null where it is injected
    "mean_token_distance": pa.float64(),  # of the model
    "nodes": pa.int32(),
    "effective_cutoff": pa.float64(),
    "first_token_entropy": pa.float64(),  # nats
    "definitions": pa.list_(_DEFINITION),  # the most probable first
    "tokens": pa.list_(_TOKEN),  # the list, by the weights that suit lists where the setting names none
    "encoder_decoder_cosine": pa.float64(),
    "strongest_tokens": pa.list_(_STRONGEST),  # of the vocabulary scan; null where none was needed
    # The evidence, as ``evidence.verdicts.TreeEvidence`` has it; null where none was asked for.
    "hits": pa.int32(),
    "n_definitions": pa.int32(),
    "hit_rate_chance": pa.float64(),
    "auroc": pa.float64(),
    "rank": pa.float64(),
    "verdict": pa.string(),
    "tree": _TREE,  # null where trees were not kept
})
