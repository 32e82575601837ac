"""What can be had and where from: models, SAEs and vocabulary scans by name, fetched once and kept.

Uses ``model`` and what lies below; sae_lens and huggingface_hub. The demo's SAEs lie in ``demo/``.

- ``library``: everything by name, the most recently used in memory; ``worker``: a running model does its tasks
- ``registry``: which SAEs there are, as ``entries``: those of sae-lens' registry (``registry_file``; what it does not
  tell is in ``registry_facts.yaml``) and of folders
- ``hub``, ``folders``, ``demo_model``: where files come from
- ``problems``: what goes wrong meanwhile, in the user's words
- ``sae_formats``: the formats of SAEs in folders (``saelens_format``, ``other_formats``), over ``sae_files``
- ``models``, ``saes``, ``encoder``: reading them; ``scans``: the vocabulary scan on disk
"""
