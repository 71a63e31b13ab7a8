// A caller made of gRPC alone, as Go ships it, that pings every so many seconds: ADDRESS SECONDS REQUEST (hexadecimal).
package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

// raw carries bytes as they are.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error)      { return *v.(*[]byte), nil }
func (raw) Unmarshal(data []byte, v any) error { *v.(*[]byte) = data; return nil }
func (raw) Name() string                       { return "proto" }

func run() error {
	seconds, err := strconv.Atoi(os.Args[2])
	if err != nil {
		return err
	}
	request, err := hex.DecodeString(os.Args[3])
	if err != nil {
		return err
	}
	conn, err := grpc.NewClient(os.Args[1],
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: time.Duration(seconds) * time.Second, PermitWithoutStream: true,
		}))
	if err != nil {
		return err
	}
	defer conn.Close()
	stream, err := conn.NewStream(context.Background(), &grpc.StreamDesc{ServerStreams: true},
		"/trunkline.v1.CompletionService/StreamCompletion", grpc.ForceCodec(raw{}))
	if err != nil {
		return err
	}
	if err := stream.SendMsg(&request); err != nil {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	for {
		var event []byte
		if err := stream.RecvMsg(&event); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func main() {
	if err := run(); err != nil {
		fmt.Println(status.Code(err), err)
		os.Exit(1)
	}
	fmt.Println("OK")
}
