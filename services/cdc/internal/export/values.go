package export

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strings"

	"github.com/millrace-io/millrace/services/cdc/internal/rows"
)

var (
	errBoolean   = errors.New("this is no boolean; write true or false")
	errInteger   = errors.New("this is no whole number")
	errTimestamp = errors.New("this is no time; write 2006-01-02T15:04:05.999999 with Z or an offset such as +02:00")
	errDate      = errors.New("this is no date; write 2006-01-02")
	errBytes     = errors.New(`these are no bytes; write them as base64, or in hexadecimal digits after \x`)
)

// valueText is a file's value in the text form of PostgreSQL. What it passes on as it is, the encoder checks.
func valueText(c rows.Column, text string) (string, error) {
	switch c.Kind {
	case rows.Boolean:
		return booleanText(text)
	case rows.Int, rows.Long:
		return integerText(text)
	case rows.Decimal:
		return decimalText(text, c.Scale)
	case rows.Date:
		return dateText(text)
	case rows.Timestamp:
		return timestampText(text, true)
	case rows.LocalTimestamp:
		return timestampText(text, false)
	case rows.Bytes:
		return bytesText(text)
	}
	return text, nil
}

func booleanText(text string) (string, error) {
	switch strings.ToLower(text) {
	case "t", "true", "1", "yes", "y", "on":
		return "t", nil
	case "f", "false", "0", "no", "n", "off":
		return "f", nil
	}
	return "", errBoolean
}

// integerText takes 12, 12.0 and 1.2e1: programs that know only floating-point numbers write them so.
func integerText(text string) (string, error) {
	text = strings.TrimPrefix(text, "+")
	if !strings.ContainsAny(text, ".eE") {
		return text, nil
	}
	plain, err := plainNumber(text)
	if err != nil {
		return "", err
	}
	whole, fraction, _ := strings.Cut(plain, ".")
	if strings.Trim(fraction, "0") != "" {
		return "", errInteger
	}
	return whole, nil
}

// decimalText leaves out zeros beyond the scale.
func decimalText(text string, scale int) (string, error) {
	plain, err := plainNumber(strings.TrimPrefix(text, "+"))
	if err != nil {
		return "", err
	}
	whole, fraction, point := strings.Cut(plain, ".")
	if !point || len(fraction) <= scale {
		return plain, nil
	}
	if strings.Trim(fraction[scale:], "0") != "" {
		return "", rows.ErrDoesNotFit
	}
	if scale == 0 {
		return whole, nil
	}
	return whole + "." + fraction[:scale], nil
}

func dateText(text string) (string, error) {
	day, clock, timed := strings.Cut(strings.Replace(text, "T", " ", 1), " ")
	if !timed || clock == "BC" {
		return text, nil
	}
	if strings.Trim(strings.TrimSuffix(clock, "Z"), "0:.") != "" { // only midnight is a date
		return "", errDate
	}
	return day, nil
}

// timestampText takes ISO 8601 and PostgreSQL's own form.
func timestampText(text string, zoned bool) (string, error) {
	switch text {
	case "infinity", "-infinity":
		return text, nil
	}
	rest, bc := strings.CutSuffix(text, " BC")
	at := strings.IndexAny(rest, "T ")
	if at < 0 {
		return "", errTimestamp
	}
	day, clock := rest[:at], rest[at+1:]
	clock, offset, err := cutOffset(clock)
	if err != nil || offset == "" && zoned || strings.Count(clock, ":") != 2 {
		return "", errTimestamp
	}
	if second, fraction, ok := strings.Cut(clock, "."); ok {
		for len(fraction) > 6 && fraction[len(fraction)-1] == '0' { // of nanoseconds
			fraction = fraction[:len(fraction)-1]
		}
		clock = second + "." + fraction
	}
	out := day + " " + clock + offset
	if bc {
		out += " BC"
	}
	return out, nil
}

// cutOffset splits the offset off a time of day, in PostgreSQL's form.
func cutOffset(clock string) (rest, offset string, err error) {
	if rest, ok := strings.CutSuffix(clock, "Z"); ok {
		return rest, "+00", nil
	}
	at := strings.IndexAny(clock, "+-")
	if at < 0 {
		return clock, "", nil
	}
	rest, offset = strings.TrimSuffix(clock[:at], " "), clock[at:]
	if len(offset) == 5 && !strings.Contains(offset, ":") { // +0530
		offset = offset[:3] + ":" + offset[3:]
	}
	if len(offset) < 3 {
		return "", "", errTimestamp
	}
	return rest, offset, nil
}

func bytesText(text string) (string, error) {
	if digits, ok := strings.CutPrefix(text, `\x`); ok {
		if _, err := hex.DecodeString(digits); err != nil {
			return "", errBytes
		}
		return text, nil
	}
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return "", errBytes
	}
	return `\x` + hex.EncodeToString(b), nil
}
