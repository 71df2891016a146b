package kafka

import (
	"encoding/binary"
	"slices"
	"sync"

	"github.com/pierrec/lz4/v4"
)

// lz4Scratch holds buffers that batches are decompressed in, as *[]byte.
var lz4Scratch = sync.Pool{New: func() any { return new([]byte) }}

// lz4Kept is the largest of those buffers that is kept, in bytes.
const lz4Kept = 4 << 20

// unlz4 decompresses a frame of independent blocks, which is what Kafka's producers write,
// to at most that many bytes. It reports false for any other frame, for one that is
// damaged and for one that is too large.
//
// The frame's own checksums are not compared: the checksum of the record batch covers the
// same bytes, and the client has compared that. They are a tenth of what reading costs.
//
// The format is lz4_Frame_format of https://github.com/lz4/lz4, version 1.6.
func unlz4(src []byte, most int) (out []byte, ok bool) {
	const (
		header      = 7 // magic number, flags, block size, checksum of the header
		fixed       = 0b1110_0001
		independent = 0b0110_0000 // version 1, independent blocks, no dictionary
		blockSum    = 0b0001_0000
		size        = 0b0000_1000
		contentSum  = 0b0000_0100
		stored      = 1 << 31 // the block is not compressed
	)
	if len(src) < header || binary.LittleEndian.Uint32(src) != 0x184D2204 || src[4]&fixed != independent {
		return nil, false
	}
	if src[5]&^0b0111_0000 != 0 || src[5]>>4 < 4 {
		return nil, false
	}
	flags, largest, rest := src[4], 1<<(8+2*(src[5]>>4)), src[header:]
	if flags&size != 0 {
		if len(rest) < 8 {
			return nil, false
		}
		rest = rest[8:]
	}
	scratch := lz4Scratch.Get().(*[]byte)
	defer lz4Scratch.Put(scratch)
	buf := (*scratch)[:0]
	defer func() {
		if *scratch = buf; cap(buf) > lz4Kept {
			*scratch = nil
		}
	}()
	for {
		if len(rest) < 4 {
			return nil, false
		}
		n := binary.LittleEndian.Uint32(rest)
		rest = rest[4:]
		if n == 0 {
			break
		}
		length := int(n &^ stored)
		if length > len(rest) {
			return nil, false
		}
		block := rest[:length]
		rest = rest[length:]
		if flags&blockSum != 0 {
			if len(rest) < 4 {
				return nil, false
			}
			rest = rest[4:]
		}
		if n&stored != 0 {
			buf = append(buf, block...)
		} else if buf, ok = appendLZ4Block(buf, block, largest); !ok {
			return nil, false
		}
		if len(buf) > most {
			return nil, false
		}
	}
	if flags&contentSum != 0 && len(rest) == 4 {
		rest = nil
	}
	if len(rest) > 0 { // another frame
		return nil, false
	}
	return slices.Clone(buf), true
}

// appendLZ4Block decompresses a block behind dst. Blocks of a frame have a largest size,
// in bytes, and no byte of a block stands for more than 255.
func appendLZ4Block(dst, block []byte, largest int) ([]byte, bool) {
	largest = min(largest, 255*len(block))
	for room := min(4*len(block), largest); ; room = min(2*room, largest) {
		dst = slices.Grow(dst, room)
		n, err := lz4.UncompressBlock(block, dst[len(dst):cap(dst)])
		if err == nil {
			return dst[:len(dst)+n], true
		}
		if room == largest {
			return dst, false
		}
	}
}
