package traffic

import (
	"encoding/binary"
	"encoding/hex"
)

// A message id is a UUID of version 8 (RFC 9562, free form): the stream in
// front, the number of the event in the last twelve digits.
const idLen = 36

const hexDigits = "0123456789abcdef"

// idHead is everything of an id but the number: "xxxxxxxx-xxxx-8xxx-8xxx-".
func idHead(seed uint64) (head [24]byte) {
	var digits [32]byte
	hex.Encode(digits[:], binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, mix(seed)), mix(^seed)))
	copy(head[0:8], digits[0:8])
	copy(head[9:13], digits[8:12])
	copy(head[14:18], digits[12:16])
	copy(head[19:23], digits[16:20])
	head[14], head[19] = '8', '8'
	head[8], head[13], head[18], head[23] = '-', '-', '-', '-'
	return head
}

func appendID(dst []byte, head *[24]byte, seq uint64) []byte {
	dst = append(dst, head[:]...)
	for shift := 44; shift >= 0; shift -= 4 {
		dst = append(dst, hexDigits[seq>>shift&15])
	}
	return dst
}

// Sequence returns the place of an event in its stream, from 0, by its message
// id. ok is false for an id that New's generators do not make.
func Sequence(messageID string) (seq uint64, ok bool) {
	if len(messageID) != idLen || messageID[14] != '8' || messageID[23] != '-' {
		return 0, false
	}
	for i := 24; i < idLen; i++ {
		c := messageID[i]
		switch {
		case c >= '0' && c <= '9':
			seq = seq<<4 | uint64(c-'0')
		case c >= 'a' && c <= 'f':
			seq = seq<<4 | uint64(c-'a'+10)
		default:
			return 0, false
		}
	}
	return seq, true
}
