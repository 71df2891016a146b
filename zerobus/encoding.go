package zerobus

// Encoding is the form of the rows that Write takes.
type Encoding struct {
	// Format is json, one JSON object per row whose keys are column names, or
	// protobuf, one message per row.
	Format string
	// Numbers holds the number of each column's field under protobuf; nil
	// under json.
	Numbers map[string]int32
}

// encoding is what a stream is opened for. It is not changed once it is in use.
type encoding struct {
	format     string
	descriptor []byte // of the message that is a row; nil under json
	asked      bool   // the form was settled, whatever was known
}
