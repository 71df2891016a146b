package zerobus

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"sync"

	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"
)

// Encoding is the form of the rows that Write takes.
type Encoding struct {
	// Format is FormatJSON, one JSON object per row whose keys are column
	// names, or FormatProtobuf, one proto2 message per row.
	Format string
	// Numbers holds the number of each column's field under protobuf; nil
	// under json. Fields of a STRUCT are numbered from 1 in their order, key
	// and value of a MAP are 1 and 2.
	Numbers map[string]int32
}

// Encoding settles the form of rows for the table's columns, as Columns returns
// them; nil where they are not known. It is called before the first Write, and
// again whenever the columns have changed. Nothing is sent in the new form
// before SetRowColumns says that rows are made in it: where the rows do not fit the
// changed table, those of the old form go on, and the service judges them.
//
// The first call decides the format for good. Under auto it is json where
// Columns has found a rescue column. A field number that was given to
// one column is never given to another, so that a row encoded before a change
// cannot be misread after it. Where the table's columns cannot be protobuf,
// auto falls back to json, and protobuf is an error that IsPermanent knows.
func (c *Client) Encoding(cols []Column) (Encoding, error) {
	c.drift.use(cols)
	if c.grpc == nil {
		return Encoding{Format: FormatJSON}, nil
	}
	return c.grpc.encode(cols)
}

// encoding is what a stream is opened for. It is not changed once it is in use.
type encoding struct {
	format     string
	descriptor []byte // of the message that is a row; nil under json
}

// fieldNumbers are the numbers given so far.
type fieldNumbers struct {
	mu      sync.Mutex // guards the fields below
	settled string     // format; empty: not yet
	columns map[string]numbered
	taken   map[int32]bool
	current map[string]int32 // of the columns in use
	next    *encoding        // settled and not adopted; nil: none
	rescue  rescue           // as found before the format was settled
}

// numbered is a field number and the form of the values it stands for.
type numbered struct {
	number int32
	form   string
}

// valueForm tells types apart whose values look different on the wire. A column
// that was only widened keeps its number.
func valueForm(delta string) string {
	if form := wireForm(delta); form != "float" {
		return form
	}
	return delta // FLOAT takes four bytes, DOUBLE eight
}

// adopt opens streams in the settled form from now on.
func (w *wire) adopt() {
	n := &w.numbers
	n.mu.Lock()
	defer n.mu.Unlock()
	if now := w.enc.Load(); n.next != nil && (now.format != n.next.format || !bytes.Equal(now.descriptor, n.next.descriptor)) {
		w.enc.Store(n.next)
	}
	n.next = nil
}

func (w *wire) encode(cols []Column) (Encoding, error) {
	n := &w.numbers
	n.mu.Lock()
	defer n.mu.Unlock()
	want := or(n.settled, w.set.RecordFormat)
	if want == FormatJSON || want == FormatAuto && len(cols) == 0 {
		n.settled = FormatJSON
		return Encoding{Format: FormatJSON}, nil
	}
	if len(cols) == 0 {
		if n.current != nil {
			return Encoding{Format: FormatProtobuf, Numbers: maps.Clone(n.current)}, nil
		}
		return Encoding{}, w.notProtobuf(errors.New("they are not known"), w.advice.names.Replace(grantRead))
	}
	if want == FormatAuto && n.rescue.column != "" {
		n.settled = FormatJSON
		n.rescue.rescued(w.log)
		return Encoding{Format: FormatJSON}, nil
	}
	numbers, given, taken, err := n.assign(cols)
	var text []byte
	if err == nil {
		text, err = w.descriptor(cols, numbers)
	}
	if err != nil {
		if want == FormatAuto {
			n.settled = FormatJSON
			w.log.Info("rows go out as JSON, since protobuf cannot hold the table's columns", zap.Error(err))
			return Encoding{Format: FormatJSON}, nil
		}
		return Encoding{}, w.notProtobuf(err, "change the column, or set zerobus.record_format to json")
	}
	if want == FormatAuto && n.rescue.err != nil { // want is the format settled from now on
		n.rescue.unseen(w.log)
	}
	n.settled, n.columns, n.taken, n.current = FormatProtobuf, given, taken, numbers
	n.next = &encoding{format: FormatProtobuf, descriptor: text}
	return Encoding{Format: FormatProtobuf, Numbers: maps.Clone(numbers)}, nil
}

func (w *wire) descriptor(cols []Column, numbers map[string]int32) ([]byte, error) {
	message, err := describe(w.set.table, cols, numbers)
	if err != nil {
		return nil, err
	}
	return proto.MarshalOptions{Deterministic: true}.Marshal(message)
}

func (w *wire) notProtobuf(err error, remedy string) *Error {
	return &Error{Op: opColumns, Err: err, kind: configuration, Meaning: "the table's columns cannot be carried as protobuf", Remedy: remedy}
}

// assign returns a number for each column, its place in the table counted from
// 1 unless another column or type had it before, and what is given and taken
// then. Nothing is changed yet. Called with mu held.
func (n *fieldNumbers) assign(cols []Column) (numbers map[string]int32, given map[string]numbered, taken map[int32]bool, err error) {
	numbers = make(map[string]int32, len(cols))
	given, taken = maps.Clone(n.columns), maps.Clone(n.taken)
	if given == nil {
		given, taken = map[string]numbered{}, map[int32]bool{}
	}
	places := map[int]string{}
	var fresh []Column
	for _, c := range cols {
		if other, twice := places[c.Position]; twice {
			return nil, nil, nil, fmt.Errorf("columns %q and %q are both at position %d", clean(other, 255), clean(c.Name, 255), c.Position)
		}
		places[c.Position] = c.Name
		if had, ok := given[c.Name]; ok && had.form == valueForm(c.Type) {
			numbers[c.Name] = had.number
		} else {
			fresh = append(fresh, c)
		}
	}
	for _, c := range fresh {
		number := int32(min(c.Position+1, 1<<29-1)) // the greatest number protobuf has
		for next := int32(1); taken[number]; {
			if number = next; number == reservedFrom {
				number = reservedTo + 1
			}
			next = number + 1
		}
		taken[number] = true
		numbers[c.Name], given[c.Name] = number, numbered{number, valueForm(c.Type)}
	}
	return numbers, given, taken, nil
}
