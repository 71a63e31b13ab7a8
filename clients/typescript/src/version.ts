/** Version of this package; the user agent carries it. */
export const VERSION = "0.1.0";
