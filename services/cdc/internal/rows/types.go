package rows

// Object ids of PostgreSQL's own types; they never change.
const (
	oidBool        = 16
	oidBytea       = 17
	oidInt8        = 20
	oidInt2        = 21
	oidInt4        = 23
	oidFloat4      = 700
	oidFloat8      = 701
	oidDate        = 1082
	oidTimestamp   = 1114
	oidTimestamptz = 1184
	oidNumeric     = 1700
)

// FirstUserOID is the first object id that is not PostgreSQL's own: such a type may be a domain over another.
const FirstUserOID = 16384

// KindOf is how a type is written; modifier is pg_attribute.atttypmod, -1 if none. precision and scale are those of a
// Decimal.
func KindOf(oid uint32, modifier int32) (kind Kind, precision, scale int) {
	switch oid {
	case oidBool:
		return Boolean, 0, 0
	case oidBytea:
		return Bytes, 0, 0
	case oidInt8:
		return Long, 0, 0
	case oidInt2, oidInt4:
		return Int, 0, 0
	case oidFloat4:
		return Float, 0, 0
	case oidFloat8:
		return Double, 0, 0
	case oidDate:
		return Date, 0, 0
	case oidTimestamp:
		return LocalTimestamp, 0, 0
	case oidTimestamptz:
		return Timestamp, 0, 0
	case oidNumeric:
		if modifier < 4 {
			return String, 0, 0
		}
		precision = int(modifier-4) >> 16 & 0xffff
		scale = int((modifier-4)&0x7ff^1024) - 1024 // 11 bits with a sign
		if scale < 0 || scale > precision {         // Avro has no such decimals
			return String, 0, 0
		}
		return Decimal, precision, scale
	}
	return String, 0, 0
}
