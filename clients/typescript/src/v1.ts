/** The generated messages and services of package `trunkline.v1`. */
export * from "./trunkline/v1/completion_pb.js";
export * from "./trunkline/v1/completion_service_pb.js";
export * from "./trunkline/v1/config_pb.js";
export * from "./trunkline/v1/embedding_service_pb.js";
export * from "./trunkline/v1/error_pb.js";
export * from "./trunkline/v1/generation_pb.js";
export * from "./trunkline/v1/message_pb.js";
export * from "./trunkline/v1/model_service_pb.js";
