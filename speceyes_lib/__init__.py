"""SpecEyes notebook suite: speculative perception and planning for agentic multimodal LLMs, reproduced and analysed.

The library holds the logic, the notebooks hold the story. Importing this package has no side effect and
pulls in neither torch nor transformers nor openai.
"""

__version__ = "0.1.0"
