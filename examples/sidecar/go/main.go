// A sidecar that takes records of calls from a socket and prints a line for each: go run . /run/sidecar.sock
//
// It confirms records when the gateway asks for it (unix:/run/sidecar.sock?ack=1), and refuses versions of the protocol
// that it does not know. docs/sidecar.md has the protocol.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
)

type hello struct {
	Protocol string `json:"protocol"`
	Version  int    `json:"version"`
	Ack      bool   `json:"ack"`
}

type record struct {
	Version   int             `json:"version"`
	ID        string          `json:"id"`
	Truncated []string        `json:"truncated"`
	Trace     json.RawMessage `json:"trace"`
}

// summary is the little that this program looks for in a trace.
type summary struct {
	Name   string `json:"name"`
	Method string `json:"method"`
	Model  string `json:"model"`
	Status struct {
		Code   int    `json:"code"`
		Reason string `json:"reason"`
	} `json:"status"`
	Usage *struct {
		InputTokens  int    `json:"inputTokens"`
		OutputTokens int    `json:"outputTokens"`
		Source       string `json:"source"`
	} `json:"usage"`
}

var version = flag.Int("version", 1, "the version of the protocol to understand")

func main() {
	flag.Parse()
	if err := run(flag.Arg(0)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	defer listener.Close()
	fmt.Println("listening on", path)
	var printing sync.Mutex
	for {
		connection, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer connection.Close()
			if err := serve(connection, &printing); err != nil && !errors.Is(err, io.EOF) {
				fmt.Fprintln(os.Stderr, err)
			}
		}()
	}
}

func serve(connection net.Conn, printing *sync.Mutex) error {
	lines := bufio.NewReader(connection)
	say := json.NewEncoder(connection)
	var first hello
	if err := next(lines, &first); err != nil {
		return err
	}
	if first.Protocol != "trunkline.traces" || first.Version != *version {
		return say.Encode(map[string]any{"refuse": "another version is understood here", "versions": []int{*version}})
	}
	if err := say.Encode(map[string]any{"accept": *version}); err != nil {
		return err
	}
	for {
		var one record
		if err := next(lines, &one); err != nil {
			return err
		}
		var trace summary
		if err := json.Unmarshal(one.Trace, &trace); err != nil {
			return fmt.Errorf("%s: %w", one.ID, err)
		}
		line, err := json.Marshal(map[string]any{
			"id": one.ID, "name": trace.Name, "method": trace.Method, "model": trace.Model,
			"code": trace.Status.Code, "reason": trace.Status.Reason,
			"usage": trace.Usage, "bytes": len(one.Trace), "truncated": one.Truncated,
		})
		if err != nil {
			return err
		}
		printing.Lock()
		fmt.Println(string(line))
		printing.Unlock()
		if first.Ack {
			if err := say.Encode(map[string]any{"ack": one.ID}); err != nil {
				return err
			}
		}
	}
}

// next reads one whole line, however long.
func next(lines *bufio.Reader, into any) error {
	line, err := lines.ReadBytes('\n')
	if err != nil {
		return err
	}
	return json.Unmarshal(line, into)
}
