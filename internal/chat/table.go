package chat

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

const tableMIME = "application/vnd.caesarion.table+json"

// A model needs to know a frame's columns and to see a few values; what it
// wants beyond that it prints. Thirty columns are what a wide CSV has.
const (
	tableHead    = 5
	tableTail    = 5
	tableColumns = 30
	tableNames   = 200 // columns that are named; each costs some 10 tokens
	tableValue   = 40  // characters of one value
)

type table struct {
	Columns []struct {
		Name  string `json:"name"`
		Dtype string `json:"dtype"`
		Nulls *int64 `json:"nulls"`
	} `json:"columns"`
	Index        []json.RawMessage   `json:"index"`
	Rows         [][]json.RawMessage `json:"rows"`
	TotalRows    int64               `json:"total_rows"`
	TotalColumns int64               `json:"total_columns"`
}

// tableText describes a data frame: shape, columns with their types and how
// many values are missing, first and last rows. plain is the frame as the
// kernel prints it: its last lines are the last rows when the table has only
// the first ones.
func tableText(raw json.RawMessage, plain string) (string, bool) {
	var t table
	if json.Unmarshal(raw, &t) != nil || len(t.Columns) == 0 && t.TotalColumns != 0 {
		return "", false
	}
	var b strings.Builder
	fmt.Fprintf(&b, "DataFrame, %d rows × %d columns\n", t.TotalRows, t.TotalColumns)
	for i, c := range t.Columns {
		if i == 0 {
			b.WriteString("columns: ")
		} else {
			b.WriteString(", ")
		}
		if i == tableNames {
			break
		}
		fmt.Fprintf(&b, "%s (%s", short(c.Name, tableValue), c.Dtype)
		if c.Nulls != nil && *c.Nulls > 0 {
			fmt.Fprintf(&b, ", %d missing", *c.Nulls)
		}
		b.WriteByte(')')
	}
	if n := t.TotalColumns - int64(min(len(t.Columns), tableNames)); n > 0 && len(t.Columns) > 0 {
		fmt.Fprintf(&b, "… and %d more", n)
	}
	b.WriteByte('\n')
	if len(t.Rows) == 0 {
		return b.String(), true
	}
	t.header(&b)
	whole := int64(len(t.Rows)) >= t.TotalRows
	if whole && len(t.Rows) <= tableHead+tableTail {
		t.rows(&b, 0, len(t.Rows))
		return b.String(), true
	}
	t.rows(&b, 0, min(tableHead, len(t.Rows)))
	b.WriteString("…\n")
	if whole {
		t.rows(&b, len(t.Rows)-tableTail, len(t.Rows))
	} else {
		b.WriteString(lastRows(plain))
	}
	return b.String(), true
}

func (t *table) header(b *strings.Builder) {
	b.WriteString("index")
	for _, c := range t.Columns[:min(len(t.Columns), tableColumns)] {
		b.WriteString(" | ")
		b.WriteString(short(c.Name, tableValue))
	}
	b.WriteByte('\n')
}

func (t *table) rows(b *strings.Builder, from, to int) {
	for i := from; i < to; i++ {
		if i < len(t.Index) {
			b.WriteString(cellText(t.Index[i]))
		} else {
			b.WriteString(strconv.Itoa(i))
		}
		for _, v := range t.Rows[i][:min(len(t.Rows[i]), tableColumns)] {
			b.WriteString(" | ")
			b.WriteString(cellText(v))
		}
		b.WriteByte('\n')
	}
}

func cellText(raw json.RawMessage) string {
	var v any
	if json.Unmarshal(raw, &v) != nil || v == nil {
		return "—"
	}
	if s, ok := v.(string); ok {
		return short(s, tableValue)
	}
	return strings.TrimSpace(string(raw))
}

// lastRows gives the last rows of a frame as pandas prints it, when they stand
// in one block of lines.
func lastRows(plain string) string {
	plain, _, _ = strings.Cut(plain, "\n\n[")
	lines := strings.Split(strings.TrimRight(plain, "\n"), "\n")
	for _, l := range lines {
		if strings.HasSuffix(l, "\\") { // columns go on further down
			return ""
		}
	}
	for i, l := range lines {
		if strings.HasPrefix(strings.TrimLeft(l, " "), "..") {
			lines = lines[i+1:]
			break
		}
	}
	if len(lines) == 0 || len(lines) > 2*tableTail {
		return ""
	}
	var b strings.Builder
	for _, l := range lines {
		b.WriteString(short(l, tableColumns*10))
		b.WriteByte('\n')
	}
	return b.String()
}
