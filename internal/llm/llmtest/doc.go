// Package llmtest plays a language model: an OpenAI-compatible server over
// real HTTP that answers from a script. It is for tests and demonstrations and
// never a default.
//
// A script is YAML. The scenario is chosen by the words of the person's last
// message, the step by how many rounds of tool calls came since:
//
//	models: [scripted]
//	tokens_per_second: 60        # default 0: as fast as it goes
//	scenarios:
//	  - name: weather            # shown where {{scenarios}} stands in a text
//	    say: What is the weather in Berlin?
//	    match: (?i)weather       # regular expression; without it: every message
//	    steps:
//	      - text: I look it up.
//	        calls:
//	          - name: get_current_weather
//	            arguments: {latitude: 52.52, longitude: 13.41}
//	      - expect: temperature  # the tool's answer must match, or the answer is a 400
//	        text: It is mild.
//
// Step has all that a server can do and do wrong. testdata/faults.yaml has an
// example of each.
package llmtest
