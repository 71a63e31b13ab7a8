package trunkline

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

func TestEveryWrongOptionIsNamedAtOnce(t *testing.T) {
	_, err := New(WithAddress("gateway"), WithConnections(0), WithRateLimitRetries(-1), WithAPIKey("sk-secret\n"),
		WithTLSFiles("missing.pem", "", ""), WithPlaintext())

	if err == nil {
		t.Fatal("no error")
	}
	for _, part := range []string{
		`address "gateway" has no port`, "connections is 0", "rate limit retries is -1", "API key holds a blank",
		"missing.pem", "plaintext and TLS",
	} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not in %q", part, err)
		}
	}
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("the key is shown in %q", err)
	}
}

func TestAnAddressThatIsAURLIsRefusedWithWhatToWrite(t *testing.T) {
	_, err := New(WithAddress("https://gateway:443"))

	if err == nil || !strings.Contains(err.Error(), "write host:port") {
		t.Errorf("error is %v", err)
	}
}

func TestOnlyLoopbackAndSocketsAreConnectedInPlaintextUnasked(t *testing.T) {
	for address, want := range map[string]string{
		"127.0.0.1:50051":                 "insecure",
		"127.3.2.1:50051":                 "insecure",
		"localhost:50051":                 "insecure",
		"[::1]:50051":                     "insecure",
		"dns:///localhost:50051":          "insecure",
		"unix:/run/trunkline.sock":        "insecure",
		"unix:///run/trunkline.sock":      "insecure",
		"gateway:443":                     "tls",
		"localhost.example.com:443":       "tls",
		"10.0.0.1:443":                    "tls",
		"dns:///gateway.example.com:443":  "tls",
		"dns://127.0.0.1/gateway.test:53": "tls",
	} {
		o, err := newOptions([]Option{WithAddress(address)})
		if err != nil {
			t.Fatal(err)
		}
		if got := o.credentials().Info().SecurityProtocol; got != want {
			t.Errorf("%s is connected with %s, want %s", address, got, want)
		}
	}
}

func TestPlaintextAndTLSCanBeAskedFor(t *testing.T) {
	for want, opts := range map[string][]Option{
		"insecure": {WithAddress("gateway:50051"), WithPlaintext()},
		"tls":      {WithAddress("127.0.0.1:50051"), WithTLS(&tls.Config{MinVersion: tls.VersionTLS12})},
	} {
		o, err := newOptions(opts)
		if err != nil {
			t.Fatal(err)
		}
		if got := o.credentials().Info().SecurityProtocol; got != want {
			t.Errorf("connected with %s, want %s", got, want)
		}
	}
}

func TestMutualTLSFromFiles(t *testing.T) {
	files := certificates(t)
	pair, err := tls.LoadX509KeyPair(files.cert, files.key)
	if err != nil {
		t.Fatal(err)
	}
	g := &gateway{create: echo}
	address := g.listen(t, grpc.Creds(credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: files.pool,
	})))

	completion, err := newClient(t, WithAddress(address), WithTLSFiles(files.ca, files.cert, files.key)).
		Complete(inTime(t), hello)
	if err != nil || TextOf(completion) != "You said: Say hello." {
		t.Errorf("answer %v, error %v", completion, err)
	}

	once := WithDialOptions(grpc.WithDisableRetry())
	for name, opt := range map[string]Option{
		"no certificate":   WithTLSFiles(files.ca, "", ""),
		"another CA":       WithTLSFiles("", files.cert, files.key),
		"no encryption":    WithPlaintext(),
		"the wrong server": WithTLS(&tls.Config{MinVersion: tls.VersionTLS12, RootCAs: files.pool, ServerName: "other"}),
	} {
		if _, err := newClient(t, WithAddress(address), once, opt).Complete(inTime(t), hello); !errors.Is(err, ErrUnreachable) {
			t.Errorf("%s: error is %v", name, err)
		}
	}
}

func TestFilesThatHoldNoCertificateAreNamed(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}

	_, err := New(WithTLSFiles(empty, empty, empty))

	if err == nil || strings.Count(err.Error(), empty) < 2 {
		t.Errorf("error is %v", err)
	}
}

type certificateFiles struct {
	ca, cert, key string
	pool          *x509.CertPool
}

// certificates makes one that signs itself, for server and client alike.
func certificates(t *testing.T) (files certificateFiles) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "trunkline test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, content []byte) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	files.cert, files.key = write("cert.pem", "CERTIFICATE", der), write("key.pem", "PRIVATE KEY", secret)
	files.ca, files.pool = files.cert, x509.NewCertPool()
	files.pool.AddCert(certificate)
	return files
}
