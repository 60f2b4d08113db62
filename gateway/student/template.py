"""The chat template of a student that has none of its own: ChatML, answers marked.

What stands between the generation marks is what a student learns to say; the stop token stands
inside them, or the student would never learn to stop. Tool calls and tools are JSON text.
"""

from __future__ import annotations

from typing import Final

START_TOKEN: Final = "<|im_start|>"  # noqa: S105  # a word of the vocabulary, not a secret
STOP_TOKEN: Final = "<|im_end|>"  # noqa: S105  # a word of the vocabulary, not a secret
PAD_TOKEN: Final = "<|endoftext|>"  # noqa: S105  # a word of the vocabulary, not a secret

CHATML: Final = """\
{%- macro words(content) -%}
  {%- if content is string -%}
    {{- content -}}
  {%- elif content is sequence -%}
    {%- for part in content -%}{{- part['text'] -}}{%- endfor -%}
  {%- endif -%}
{%- endmacro -%}
{%- macro calls(message) -%}
  {%- for call in message['tool_calls'] or [] -%}
    {%- set arguments = call['function']['arguments'] -%}
    {{- '<tool_call>{"name": ' + (call['function']['name'] | tojson) + ', "arguments": ' -}}
    {{- arguments if arguments is string else (arguments | tojson) -}}
    {{- '}</tool_call>' -}}
  {%- endfor -%}
{%- endmacro -%}
{%- if tools -%}
  {{- '<|im_start|>tools\\n' -}}
  {%- for tool in tools -%}{{- (tool | tojson) + '\\n' -}}{%- endfor -%}
  {{- '<|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages -%}
  {{- '<|im_start|>' + message['role'] + '\\n' -}}
  {%- if message['role'] == 'assistant' -%}
    {%- generation -%}
      {%- if message['reasoning_content'] -%}
        {{- '<think>\\n' + message['reasoning_content'] + '\\n</think>\\n\\n' -}}
      {%- endif -%}
      {{- words(message['content']) -}}
      {{- calls(message) -}}
      {{- '<|im_end|>' -}}
    {%- endgeneration -%}
    {{- '\\n' -}}
  {%- else -%}
    {{- words(message['content']) -}}
    {{- '<|im_end|>\\n' -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
"""ChatML in Jinja, as transformers reads it."""
