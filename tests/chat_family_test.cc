// Chat templates built as those of the model families are: what they rely on of the template language must render.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "text/chat_template.h"

namespace bough {
namespace {

const std::vector<ChatMessage> kTurns = {{"user", "one"}, {"assistant", "two"}, {"user", " three "}};
const std::vector<ChatMessage> kWithSystem = {{"system", "be"}, {"user", "one"}};

std::string render(const std::string& source, const std::vector<ChatMessage>& messages) {
  const Result<ChatTemplate> made = ChatTemplate::create(source, "<s>", "</s>");
  if (!made.ok()) return made.status().message();
  const Result<std::vector<PromptPart>> parts = made->render(messages, true);
  if (!parts.ok()) return parts.status().message();
  std::string text;
  for (const PromptPart& part : *parts) text += part.text;
  return text;
}

// Headers around each role, the date by a function that only some engines have, contents trimmed.
TEST(ChatFamilies, Llama3) {
  const std::string source = R"({{- bos_token }}
{%- if not date_string is defined %}{%- if strftime_now is defined %}{%- set date_string = 'today' %}{%- else %}{%- set date_string = 'a day' %}{%- endif %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content'] %}{%- set messages = messages[1:] %}{%- else %}{%- set system_message = '' %}{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\n\n' }}{%- if tools is not none and tools is defined and tools %}{{- 'tools' }}{%- endif %}{{- system_message }}{{- '<|eot_id|>' }}
{%- for message in messages %}{%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' }}{%- endif %}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %})";
  EXPECT_EQ(render(source, kWithSystem),
            "<s><|start_header_id|>system<|end_header_id|>\n\nbe<|eot_id|><|start_header_id|>user<|end_header_id|>\n\none<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n");
}

// Roles that must alternate, and no role for the system.
TEST(ChatFamilies, Mistral) {
  const std::string source = R"({{ bos_token }}{% for message in messages %}
{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}
{%- if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}
{%- elif message['role'] == 'assistant' %}{{ ' ' + message['content'] + eos_token }}
{%- else %}{{ raise_exception('only user and assistant') }}{% endif %}{% endfor %})";
  EXPECT_EQ(render(source, kTurns), "<s>[INST] one [/INST] two</s>[INST]  three  [/INST]");
  EXPECT_EQ(render(source, kWithSystem), "<s>[INST] be\none [/INST]");
}

// A system message of the template's own when there is none.
TEST(ChatFamilies, Qwen2) {
  const std::string source = R"({%- if tools %}{{- 'tools' }}{%- else %}
{%- if messages[0]['role'] == 'system' %}{{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}
{%- else %}{{- '<|im_start|>system\nown words<|im_end|>\n' }}{%- endif %}{%- endif %}
{%- for message in messages %}{%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}{%- endif %}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %})";
  EXPECT_EQ(render(source, kWithSystem), "<|im_start|>system\nbe<|im_end|>\n<|im_start|>user\none<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(render(source, {{"user", "one"}}),
            "<|im_start|>system\nown words<|im_end|>\n<|im_start|>user\none<|im_end|>\n<|im_start|>assistant\n");
}

// A namespace, messages read backwards, text tests, a switch that callers may set.
TEST(ChatFamilies, Qwen3) {
  const std::string source = R"({%- set ns = namespace(searching=true, last_query=messages|length - 1) %}
{%- for message in messages[::-1] %}{%- set index = (messages|length - 1) - loop.index0 %}
{%- if ns.searching and message.role == "user" and message.content is string and not (message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
{%- set ns.searching = false %}{%- set ns.last_query = index %}{%- endif %}{%- endfor %}
{%- for message in messages %}{%- if message.content is string %}{%- set content = message.content %}{%- else %}{%- set content = '' %}{%- endif %}
{%- if message.role == 'assistant' and message.reasoning_content is string and loop.index0 > ns.last_query %}{{- message.reasoning_content.strip('\n') }}{%- endif %}
{{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>' + '\n' }}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}{%- endif %})";
  EXPECT_EQ(render(source, kWithSystem), "<|im_start|>system\nbe<|im_end|>\n<|im_start|>user\none<|im_end|>\n<|im_start|>assistant\n");
}

// The system's words before the first user's, `model` for the assistant, contents that are text or a list.
TEST(ChatFamilies, Gemma3) {
  const std::string source = R"({{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}{%- if messages[0]['content'] is string -%}{%- set first = messages[0]['content'] + '\n\n' -%}
{%- else -%}{%- set first = messages[0]['content'][0]['text'] + '\n\n' -%}{%- endif -%}{%- set turns = messages[1:] -%}
{%- else -%}{%- set first = "" -%}{%- set turns = messages -%}{%- endif -%}
{%- for message in turns -%}{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}{{ raise_exception("roles must alternate") }}{%- endif -%}
{%- if (message['role'] == 'assistant') -%}{%- set role = "model" -%}{%- else -%}{%- set role = message['role'] -%}{%- endif -%}
{{ '<start_of_turn>' + role + '\n' + (first if loop.first else "") }}
{%- if message['content'] is string -%}{{ message['content'] | trim }}
{%- elif message['content'] is iterable -%}{%- for item in message['content'] -%}{%- if item['type'] == 'text' -%}{{ item['text'] | trim }}{%- endif -%}{%- endfor -%}
{%- else -%}{{ raise_exception("no content") }}{%- endif -%}{{ '<end_of_turn>\n' }}{%- endfor -%}
{%- if add_generation_prompt -%}{{'<start_of_turn>model\n'}}{%- endif -%})";
  EXPECT_EQ(render(source, kWithSystem), "<s><start_of_turn>user\nbe\n\none<end_of_turn>\n<start_of_turn>model\n");
  EXPECT_EQ(render(source, {{"user", "one"}, {"assistant", "two"}, {"user", "three"}}),
            "<s><start_of_turn>user\none<end_of_turn>\n<start_of_turn>model\ntwo<end_of_turn>\n<start_of_turn>user\nthree<end_of_turn>\n"
            "<start_of_turn>model\n");
}

// A role apart for each, and empty system messages left out.
TEST(ChatFamilies, Phi3) {
  const std::string source = R"({% for message in messages %}
{%- if message['role'] == 'system' and message['content'] %}{{'<|system|>\n' + message['content'] + '<|end|>\n'}}
{%- elif message['role'] == 'user' %}{{'<|user|>\n' + message['content'] + '<|end|>\n'}}
{%- elif message['role'] == 'assistant' %}{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}{% endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %})";
  EXPECT_EQ(render(source, kWithSystem), "<|system|>\nbe<|end|>\n<|user|>\none<|end|>\n<|assistant|>\n");
  EXPECT_EQ(render(source, kTurns), "<|user|>\none<|end|>\n<|assistant|>\ntwo<|end|>\n<|user|>\n three <|end|>\n<|assistant|>\n");
}

}  // namespace
}  // namespace bough
