"""What can be had and where from: models, SAEs and vocabulary scans by name, fetched once and kept.

Uses ``model`` and what lies below; sae_lens and huggingface_hub. The local models' SAEs lie in ``demo/``.

- ``library``: everything by name, the most recently used in memory; ``worker``: a running model does its tasks
- ``registry``: which SAEs there are, as ``entries``: those of sae-lens' registry (``registry_file``; what it does not
  tell is in ``registry_facts.yaml``) and of folders
- ``hub``, ``folders``, ``demo_models``: where files come from; ``terms``: what is accepted before they are fetched;
  ``hub_saes``: SAEs of any repository on the hub
- ``problems``: what goes wrong meanwhile, in the user's words
- ``sae_formats``: the formats of SAEs in folders (``saelens_format``, ``other_formats``), over ``sae_files``
- ``models`` and ``model_weights``, ``saes``, ``encoder``: reading them; ``scans``: the vocabulary scan on disk
- ``given``: models and SAEs that are loaded already; ``vector_files``: a vector of one's own from a file
"""
