package kernel

import (
	"encoding/json"
	"fmt"
	"unicode/utf8"
)

// ProtocolVersion is the version of Jupyter's messages that the kernel speaks.
const ProtocolVersion = "5.3"

// The channels of a message.
const (
	Shell   = "shell"
	Control = "control"
	Stdin   = "stdin"
	IOPub   = "iopub"
)

// Header identifies a message.
type Header struct {
	MsgID    string `json:"msg_id"`
	MsgType  string `json:"msg_type"`
	Session  string `json:"session"`
	Username string `json:"username"`
	Date     string `json:"date"` // UTC, RFC 3339
	Version  string `json:"version"`
}

// Message is one Jupyter message without ZeroMQ's envelope. The parts that
// this package has no use for stay raw, so that they pass on unchanged.
type Message struct {
	Channel      string
	Header       Header
	ParentHeader json.RawMessage // header of the request that caused this message, verbatim, or {}
	ParentID     string          // msg_id in ParentHeader; set by Receive, ignored by Send
	Metadata     json.RawMessage // an object; nil is sent as {}
	Content      json.RawMessage // an object; nil is sent as {}
	Buffers      [][]byte
}

// wireMessage is the JSON part of a frame.
type wireMessage struct {
	Channel      string          `json:"channel"`
	Header       Header          `json:"header"`
	ParentHeader json.RawMessage `json:"parent_header"`
	Metadata     json.RawMessage `json:"metadata"`
	Content      json.RawMessage `json:"content"`
}

var emptyObject = json.RawMessage("{}")

// MarshalJSON gives the JSON part of the frame that Send writes.
func (m *Message) MarshalJSON() ([]byte, error) { return m.appendJSON(nil) }

func (m *Message) appendJSON(b []byte) ([]byte, error) {
	channel, err := json.Marshal(m.Channel)
	if err != nil {
		return nil, err
	}
	header, err := json.Marshal(&m.Header)
	if err != nil {
		return nil, err
	}
	// The raw parts are the caller's: copied as they are, checked once.
	b = append(append(b, `{"channel":`...), channel...)
	b = append(append(b, `,"header":`...), header...)
	for _, part := range []struct {
		key string
		raw json.RawMessage
	}{
		{"parent_header", m.ParentHeader}, {"metadata", m.Metadata}, {"content", m.Content},
	} {
		raw := part.raw
		if len(raw) == 0 {
			raw = emptyObject
		}
		if !json.Valid(raw) {
			return nil, fmt.Errorf("kernel: %s of %s is not JSON", part.key, m.Header.MsgType)
		}
		b = append(append(append(b, ',', '"'), part.key...), `":`...)
		b = append(b, raw...)
	}
	return append(b, '}'), nil
}

// UnmarshalJSON reads the JSON part of a frame.
func (m *Message) UnmarshalJSON(b []byte) error {
	if !utf8.Valid(b) {
		return fmt.Errorf("not UTF-8")
	}
	var w wireMessage
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	m.Channel, m.Header, m.Metadata, m.Content = w.Channel, w.Header, w.Metadata, w.Content
	for _, part := range []struct {
		key string
		raw *json.RawMessage
	}{
		{"parent_header", &w.ParentHeader}, {"metadata", &m.Metadata}, {"content", &m.Content},
	} {
		if len(*part.raw) == 0 {
			*part.raw = emptyObject
		}
		if (*part.raw)[0] != '{' {
			return fmt.Errorf("%s is not an object", part.key)
		}
	}
	m.ParentHeader = w.ParentHeader
	var parent struct {
		MsgID string `json:"msg_id"`
	}
	if err := json.Unmarshal(m.ParentHeader, &parent); err != nil {
		return fmt.Errorf("parent_header: %w", err)
	}
	m.ParentID = parent.MsgID
	switch m.Channel {
	case Shell, Control, Stdin, IOPub:
	default:
		return fmt.Errorf("channel %q is unknown", m.Channel)
	}
	if m.Header.MsgType == "" {
		return fmt.Errorf("header has no msg_type")
	}
	return nil
}
