package chat

import (
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/caesarion/caesarion/internal/llm"
)

// A server's tokenizer is unknown, so sizes are estimated, rather too high: a
// request that is refused for its length costs a whole extra call, a bit of
// history that is left out early costs little.
const (
	asciiPerToken   = 4    // characters of English and code; 3.5 to 4.5 in practice
	otherPerToken   = 1    // characters of other scripts, at worst
	messageTokens   = 6    // role and separators
	imageTokens     = 1500 // the most that servers count for one image of our size
	toolsTokens     = 700  // the descriptions of our tools
	minWindow       = 2048 // a window that is said to be smaller is not believed
	keptOutput      = 160  // characters of an output that is left out: what kind it was
	maxShownImages  = 6    // of the whole history, the latest: each is as dear as two pages
	maxAnswerTokens = 8192 // room for the answer, at most a quarter of the window
)

func textTokens(s string) int64 {
	var ascii, other int64
	for _, r := range s {
		if r < utf8.RuneSelf {
			ascii++
		} else {
			other++
		}
	}
	return (ascii+asciiPerToken-1)/asciiPerToken + other/otherPerToken
}

func messageSize(m llm.Message) int64 {
	n := int64(messageTokens) + textTokens(m.Text) + int64(len(m.Images))*imageTokens
	for _, c := range m.ToolCalls {
		n += messageTokens + textTokens(c.Name) + textTokens(c.Arguments)
	}
	return n
}

func blocksSize(blocks []block) int64 {
	var n int64
	for _, b := range blocks {
		for _, m := range b.messages {
			n += messageSize(m)
		}
	}
	return n
}

// windowBudget gives the tokens that a request's history may have.
func windowBudget(info llm.Info, system string) int64 {
	window := max(info.ContextTokens, minWindow)
	answer := info.MaxOutputTokens
	if answer <= 0 || answer > maxAnswerTokens {
		answer = maxAnswerTokens
	}
	return window - min(answer, window/4) - toolsTokens - messageTokens - textTokens(system)
}

// leftOut stands for what was left out whole.
var leftOut = llm.Message{Role: llm.User, Text: "[Earlier parts of this conversation were left out, since they no longer fit. The kernel still has its variables and files.]"}

// fit leaves out of blocks what does not fit, least needed first: outputs of
// old cells, whole old turns, old rounds of the running turn; at last it
// shortens what is left. It changes blocks.
func fit(blocks []block, budget int64) []block {
	limitImages(blocks)
	size := blocksSize(blocks)
	if size <= budget {
		return blocks
	}
	// The last round is what the model is to go on with.
	last := len(blocks) - 1
	for last > 0 && blocks[last].user {
		last--
	}
	for i := 0; i < last && size > budget; i++ {
		size -= dropOutputs(&blocks[i])
	}
	left, room := 0, budget-messageSize(leftOut) // the note must fit too
	for size > budget || left > 0 && size > room {
		n := firstTurn(blocks)
		if n == 0 {
			break
		}
		size -= blocksSize(blocks[:n])
		blocks = blocks[n:]
		left++
	}
	// One turn is left. Its message stays, and its last round.
	for (size > budget || left > 0 && size > room) && len(blocks) > 2 && !blocks[1].user {
		size -= blocksSize(blocks[1:2])
		blocks = append(blocks[:1:1], blocks[2:]...)
		left++
	}
	if left > 0 {
		blocks = append([]block{{user: true, messages: []llm.Message{leftOut}}}, blocks...)
		size += messageSize(leftOut)
	}
	if size > budget {
		shorten(blocks, size-budget)
	}
	return blocks
}

// limitImages keeps the latest images.
func limitImages(blocks []block) {
	left := maxShownImages
	for i := range slices.Backward(blocks) {
		for j := len(blocks[i].messages) - 1; j >= 0; j-- {
			m := &blocks[i].messages[j]
			if n := len(m.Images); n > left {
				m.Images = m.Images[n-left:]
				if left == 0 {
					m.Images = nil
				}
				m.Text += fmt.Sprintf(" [%d earlier images left out]", n-left)
			}
			left -= len(m.Images)
		}
	}
}

// dropOutputs replaces the results in a block by their beginning and a note,
// and gives what that saves.
func dropOutputs(b *block) int64 {
	before := blocksSize([]block{*b})
	for i := range b.messages {
		m := &b.messages[i]
		if m.Role == llm.Tool && len(m.Text) > 2*keptOutput {
			m.Text = m.Text[:cutAt(m.Text, keptOutput)] + "… [the rest of this output was left out, since it no longer fits; run the code again if you need it]"
		}
		if len(m.Images) > 0 {
			m.Images = nil
			m.Text += " [left out]"
		}
	}
	return before - blocksSize([]block{*b})
}

// firstTurn gives how many blocks the oldest turn has; 0 if it is the last one.
func firstTurn(blocks []block) int {
	for i := 1; i < len(blocks); i++ {
		if blocks[i].user {
			return i
		}
	}
	return 0
}

// shorten takes tokens away from the longest texts, in the middle.
func shorten(blocks []block, tokens int64) {
	for range 32 { // each pass takes from the longest
		var longest *llm.Message
		for i := range blocks {
			for j := range blocks[i].messages {
				m := &blocks[i].messages[j]
				if longest == nil || len(m.Text) > len(longest.Text) {
					longest = m
				}
			}
		}
		if longest == nil || tokens <= 0 || len(longest.Text) < 3*keptOutput {
			return
		}
		before := messageSize(*longest)
		// In the script that this text has.
		perToken := 1 + int64(len(longest.Text))/max(1, textTokens(longest.Text))
		// A tenth more, as texts of mixed scripts are not cut evenly.
		// Less than two notes' worth would change nothing.
		less := max((tokens+tokens/10+60)*perToken, 2*keptOutput)
		keep := max(keptOutput, int64(len(longest.Text))-less)
		longest.Text = headTail(longest.Text, int(keep*2/3), int(keep/3))
		longest.Images = nil
		tokens -= before - messageSize(*longest)
	}
}

// flatten gives the messages of blocks; what a person said in a row becomes
// one message, since some models' templates want turns to alternate.
func flatten(system string, blocks []block) []llm.Message {
	list := []llm.Message{{Role: llm.System, Text: system}}
	for _, b := range blocks {
		for _, m := range b.messages {
			prev := &list[len(list)-1]
			if m.Role == llm.User && prev.Role == llm.User {
				prev.Text = joinText(prev.Text, m.Text)
				prev.Images = append(slices.Clip(prev.Images), m.Images...)
				continue
			}
			list = append(list, m)
		}
	}
	return list
}
