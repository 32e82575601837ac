"""A language model: what a prompt with a ghost in it is, and the running model's answers to it.

Uses ``trees``, ``vectors`` and ``recipes``; torch and transformers. The model's weights are never written, and hooks
act for one call and one thread.

- ``subject``: embeddings and tokens, without the running model; ``ghost_prompt``: the prompt with the ghost's place;
  ``time_limit``: for chat templates
- ``tasks``: what a model can be asked, as plain data
- ``passes``: batched passes with a key-value cache (``kv_cache``); next tokens for growth; ``layer_inputs``: what else
  a model is given
- ``finite``: numbers that are none end the work; ``causes``: why they are there
- ``residual_stream``: reading and changing it at a place; ``interventions``: injection, steering, clamp;
  ``continuation``: a text continued under pushes of several strengths
- ``questions``: what evidence asks; ``logit_lens``: directions read by the unembedding; ``jacobian_lens``: carried to
  it before; ``token_change``: what a push along a direction makes the model say
"""
