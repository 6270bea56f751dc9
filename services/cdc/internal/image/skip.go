package image

import (
	"encoding/binary"
	"fmt"

	"github.com/twmb/avro"
)

// skipper is the length of a value at the start of Avro bytes; false if they are not one.
type skipper func(b []byte) (int, bool)

// compiler makes skippers; named types refer back to what was compiled before.
type compiler struct {
	named map[string]*skipper
	nodes map[string]*avro.SchemaNode
}

func newCompiler() *compiler {
	return &compiler{named: map[string]*skipper{}, nodes: map[string]*avro.SchemaNode{}}
}

func varint(b []byte) (int64, int, bool) {
	u, n := binary.Uvarint(b)
	return int64(u>>1) ^ -int64(u&1), n, n > 0
}

func fixed(n int) skipper { return func(b []byte) (int, bool) { return n, len(b) >= n } }

func skipVarint(b []byte) (int, bool) {
	_, n, ok := varint(b)
	return n, ok
}

func skipBytes(b []byte) (int, bool) {
	size, n, ok := varint(b)
	if !ok || size < 0 || size > int64(len(b)-n) {
		return 0, false
	}
	return n + int(size), true
}

func (c *compiler) skipper(node *avro.SchemaNode) (skipper, error) {
	switch node.Type {
	case "null":
		return fixed(0), nil
	case "boolean":
		return fixed(1), nil
	case "int", "long":
		return skipVarint, nil
	case "float":
		return fixed(4), nil
	case "double":
		return fixed(8), nil
	case "bytes", "string":
		return skipBytes, nil
	case "union":
		return c.union(node)
	case "array":
		return c.blocks(node.Items, nil)
	case "map":
		return c.blocks(node.Values, skipBytes)
	}
	return c.complex(node)
}

// complex is a type with a name, or the name of one.
func (c *compiler) complex(node *avro.SchemaNode) (skipper, error) {
	if node.Type != "record" && node.Type != "error" && node.Type != "enum" && node.Type != "fixed" {
		known := c.find(node.Type)
		if known == nil {
			return nil, fmt.Errorf("the schema refers to a type %q that it does not have", node.Type)
		}
		return func(b []byte) (int, bool) { return (*known)(b) }, nil
	}
	var s skipper
	c.declare(node, &s)
	switch node.Type {
	case "enum":
		s = skipVarint
	case "fixed":
		s = fixed(node.Size)
	default:
		var fields []skipper
		for i := range node.Fields {
			f, err := c.skipper(&node.Fields[i].Type)
			if err != nil {
				return nil, err
			}
			fields = append(fields, f)
		}
		s = sequence(fields)
	}
	return s, nil
}

func (c *compiler) declare(node *avro.SchemaNode, s *skipper) {
	for _, name := range []string{node.Name, node.Namespace + "." + node.Name} {
		c.named[name], c.nodes[name] = s, node
	}
}

func (c *compiler) find(name string) *skipper { return c.named[name] }

// record is the declaration of a record, which node may only name.
func (c *compiler) record(node *avro.SchemaNode) *avro.SchemaNode {
	if node.Type == "record" {
		return node
	}
	if known := c.nodes[node.Type]; known != nil && known.Type == "record" {
		return known
	}
	return nil
}

func sequence(parts []skipper) skipper {
	return func(b []byte) (int, bool) {
		at := 0
		for _, p := range parts {
			n, ok := p(b[at:])
			if !ok {
				return 0, false
			}
			at += n
		}
		return at, true
	}
}

func (c *compiler) union(node *avro.SchemaNode) (skipper, error) {
	var branches []skipper
	for i := range node.Branches {
		b, err := c.skipper(&node.Branches[i])
		if err != nil {
			return nil, err
		}
		branches = append(branches, b)
	}
	return func(b []byte) (int, bool) {
		branch, n, ok := varint(b)
		if !ok || branch < 0 || branch >= int64(len(branches)) {
			return 0, false
		}
		size, ok := branches[branch](b[n:])
		return n + size, ok
	}, nil
}

// blocks are those of arrays and of maps, whose items begin with a key.
func (c *compiler) blocks(node *avro.SchemaNode, key skipper) (skipper, error) {
	item, err := c.skipper(node)
	if err != nil {
		return nil, err
	}
	if key != nil {
		item = sequence([]skipper{key, item})
	}
	return func(b []byte) (int, bool) {
		at := 0
		for {
			count, n, ok := varint(b[at:])
			if !ok {
				return 0, false
			}
			if at += n; count == 0 {
				return at, true
			}
			if count < 0 { // a block that tells its size
				if n, ok = skipBytes(b[at:]); !ok {
					return 0, false
				}
				at += n
				continue
			}
			for ; count > 0; count-- {
				n, ok := item(b[at:])
				if !ok || n == 0 && count > int64(len(b)) { // items without bytes, more than there can be
					return 0, false
				}
				at += n
			}
		}
	}, nil
}
