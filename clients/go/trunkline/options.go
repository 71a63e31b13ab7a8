package trunkline

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// Timeouts bound calls whose context has no deadline. Zero leaves the default; negative means no bound.
type Timeouts struct {
	// Unary calls of completions and embeddings. Default: 10 minutes.
	Unary time.Duration
	// Streams, from their start to their end. Default: 30 minutes.
	Stream time.Duration
	// Calls of the model service. Default: 30 seconds.
	Models time.Duration
}

// Option says how a [Client] connects.
type Option func(*options)

type options struct {
	address          string
	apiKey           string
	connections      int
	rateLimitRetries int
	timeouts         Timeouts
	plaintext        bool
	tls              *tls.Config
	dial             []grpc.DialOption
	problems         []error
}

// WithAddress sets the gateway: "host:port", or a gRPC target such as "dns:///host:port" or "unix:/run/trunkline.sock".
// Default: TRUNKLINE_ADDRESS, else 127.0.0.1:50051.
func WithAddress(address string) Option { return func(o *options) { o.address = address } }

// WithAPIKey sends the key with every call that has no authorization of its own. Default: TRUNKLINE_API_KEY; empty means
// none.
func WithAPIKey(key string) Option { return func(o *options) { o.apiKey = key } }

// WithConnections sets how many connections calls take in turn, so that one client reaches several workers of a server.
// Default: 2.
func WithConnections(n int) Option { return func(o *options) { o.connections = n } }

// WithTimeouts bounds calls whose context has no deadline.
func WithTimeouts(t Timeouts) Option { return func(o *options) { o.timeouts = t } }

// WithRateLimitRetries repeats a rate-limited call up to n times after the delay that the error names, if the deadline
// leaves the time for it. Default: 0.
func WithRateLimitRetries(n int) Option { return func(o *options) { o.rateLimitRetries = n } }

// WithPlaintext connects without TLS. Loopback addresses and sockets are connected so unless TLS is asked for.
func WithPlaintext() Option { return func(o *options) { o.plaintext = true } }

// WithTLS connects with this configuration. Default for addresses that are not loopback: TLS with the system's roots.
func WithTLS(config *tls.Config) Option { return func(o *options) { o.tls = config } }

// WithTLSFiles connects with TLS that trusts the CA file (empty: the system's roots) and shows the certificate (empty:
// none). All files are PEM.
func WithTLSFiles(caFile, certFile, keyFile string) Option {
	return func(o *options) {
		o.tls = &tls.Config{MinVersion: tls.VersionTLS12}
		if caFile != "" {
			pem, err := os.ReadFile(caFile)
			if err != nil {
				o.refuse("CA file: %w", err)
			}
			o.tls.RootCAs = x509.NewCertPool()
			if err == nil && !o.tls.RootCAs.AppendCertsFromPEM(pem) {
				o.refuse("CA file %q holds no PEM certificate", caFile)
			}
		}
		if certFile != "" || keyFile != "" {
			pair, err := tls.LoadX509KeyPair(certFile, keyFile)
			if err != nil {
				o.refuse("certificate %q with key %q: %w", certFile, keyFile, err)
			}
			o.tls.Certificates = []tls.Certificate{pair}
		}
	}
}

// WithDialOptions adds to the gRPC options of the client, and overrides them where they meet.
func WithDialOptions(opts ...grpc.DialOption) Option {
	return func(o *options) { o.dial = append(o.dial, opts...) }
}

func newOptions(opts []Option) (*options, error) {
	o := &options{
		address:     environment("TRUNKLINE_ADDRESS", "127.0.0.1:50051"),
		apiKey:      environment("TRUNKLINE_API_KEY", ""),
		connections: 2,
	}
	for _, opt := range opts {
		opt(o)
	}
	o.timeouts.Unary = orDefault(o.timeouts.Unary, 10*time.Minute)
	o.timeouts.Stream = orDefault(o.timeouts.Stream, 30*time.Minute)
	o.timeouts.Models = orDefault(o.timeouts.Models, 30*time.Second)
	if strings.HasPrefix(o.address, "http://") || strings.HasPrefix(o.address, "https://") {
		o.refuse("address %q is a URL; write host:port", o.address)
	} else if _, _, err := net.SplitHostPort(o.address); err != nil && !strings.Contains(o.address, ":/") {
		o.refuse("address %q has no port; write host:port, e.g. 127.0.0.1:50051", o.address)
	}
	if o.connections < 1 {
		o.refuse("connections is %d; at least 1 is needed", o.connections)
	}
	if o.rateLimitRetries < 0 {
		o.refuse("rate limit retries is %d; 0 means none", o.rateLimitRetries)
	}
	if strings.ContainsFunc(o.apiKey, func(r rune) bool { return r <= ' ' || r > '~' }) {
		o.refuse("API key holds a blank or a character that is not ASCII; check how it was read")
	}
	if o.plaintext && o.tls != nil {
		o.refuse("plaintext and TLS are both asked for; choose one")
	}
	return o, errors.Join(o.problems...)
}

func (o *options) refuse(format string, args ...any) {
	o.problems = append(o.problems, fmt.Errorf("trunkline: "+format, args...))
}

func (o *options) credentials() credentials.TransportCredentials {
	switch {
	case o.tls != nil:
		return credentials.NewTLS(o.tls)
	case o.plaintext, isLocal(o.address):
		return insecure.NewCredentials()
	default:
		return credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12})
	}
}

// isLocal tells whether what is sent to an address stays on this machine.
func isLocal(address string) bool {
	if strings.HasPrefix(address, "unix:") || strings.HasPrefix(address, "unix-abstract:") {
		return true
	}
	host, _, err := net.SplitHostPort(address[strings.LastIndex(address, "/")+1:])
	ip := net.ParseIP(host)
	return err == nil && (host == "localhost" || ip != nil && ip.IsLoopback())
}

func environment(name, fallback string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return fallback
}

func orDefault(value, fallback time.Duration) time.Duration {
	if value == 0 {
		return fallback
	}
	return value
}
