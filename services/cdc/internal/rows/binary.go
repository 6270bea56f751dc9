package rows

import (
	"encoding/base64"
	"encoding/hex"
)

// binaryValue takes bytes in PostgreSQL's hexadecimal text, which begins with prefix.
func binaryValue(prefix string, write func(dst, digits []byte) ([]byte, bool)) appendFunc {
	return func(dst, text []byte) ([]byte, error) {
		if len(text) < len(prefix) || string(text[:len(prefix)]) != prefix || (len(text)-len(prefix))%2 != 0 {
			return dst, ErrDoesNotFit
		}
		out, ok := write(dst, text[len(prefix):])
		if !ok {
			return dst, ErrDoesNotFit
		}
		return out, nil
	}
}

func appendRaw(dst, digits []byte) ([]byte, bool) {
	out, err := hex.AppendDecode(appendLong(dst, int64(len(digits)/2)), digits)
	return out, err == nil
}

func appendHex(dst, digits []byte) ([]byte, bool) {
	for _, c := range digits {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') && (c < 'A' || c > 'F') {
			return dst, false
		}
	}
	return appendBytes(dst, digits), true
}

func appendBase64(dst, digits []byte) ([]byte, bool) {
	dst = appendLong(dst, int64(base64.StdEncoding.EncodedLen(len(digits)/2)))
	var raw [48]byte // a multiple of three, so that only the last piece is padded
	for len(digits) > 0 {
		piece := digits[:min(len(digits), 2*len(raw))]
		n, err := hex.Decode(raw[:], piece)
		if err != nil {
			return dst, false
		}
		dst = base64.StdEncoding.AppendEncode(dst, raw[:n])
		digits = digits[len(piece):]
	}
	return dst, true
}
