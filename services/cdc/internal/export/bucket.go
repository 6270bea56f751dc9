package export

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// Bucket says how a bucket is reached. Credentials are those that the environment gives to AWS programs.
type Bucket struct {
	Endpoint string // "" is that of AWS; another one is asked with the bucket's name in the path
	Region   string // "" is that of the environment
}

// IsBucket tells whether a location is that of a bucket.
func IsBucket(location string) bool { return strings.HasPrefix(location, "s3://") }

type bucket struct {
	client       *s3.Client
	name, prefix string
}

// OpenBucket is the store of s3://bucket/prefix.
func OpenBucket(ctx context.Context, location string, b Bucket) (Store, error) {
	u, err := url.Parse(location)
	if err != nil || u.Host == "" || u.RawQuery != "" || u.User != nil {
		return nil, fmt.Errorf("open the export: write s3://bucket/prefix")
	}
	var options []func(*config.LoadOptions) error
	if b.Region != "" {
		options = append(options, config.WithRegion(b.Region))
	}
	cfg, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("open the export: %w", err)
	}
	if cfg.Region == "" {
		cfg.Region = "us-east-1"
	}
	client := s3.NewFromConfig(cfg, func(o *s3.Options) {
		if b.Endpoint != "" {
			o.BaseEndpoint, o.UsePathStyle = aws.String(b.Endpoint), true
		}
	})
	prefix := strings.Trim(u.Path, "/")
	if prefix != "" {
		prefix += "/"
	}
	return bucket{client, u.Host, prefix}, nil
}

func (b bucket) List(ctx context.Context) ([]string, error) {
	var out []string
	pages := s3.NewListObjectsV2Paginator(b.client, &s3.ListObjectsV2Input{Bucket: &b.name, Prefix: &b.prefix})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, fmt.Errorf("list the export in bucket %s: %w", b.name, err)
		}
		for _, o := range page.Contents {
			if name := strings.TrimPrefix(aws.ToString(o.Key), b.prefix); name != "" && !strings.HasSuffix(name, "/") {
				out = append(out, name)
			}
		}
	}
	return out, nil
}

func (b bucket) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	out, err := b.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &b.name, Key: aws.String(b.prefix + name)})
	if err != nil {
		return nil, fmt.Errorf("read from bucket %s: %w", b.name, err)
	}
	return out.Body, nil
}
