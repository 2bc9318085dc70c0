// Makes a large photograph smaller before it is sent, where the connection is slow.
//
// Rules:
// - It is scaled if sending it as it is would take more than SLOW_S by the rate that was measured
//   on uploads of this visit; before there was one, by what the browser knows of the connection;
//   or if it is more than the service takes. On a fast link it goes as it is, and what is seen is
//   what the service makes of it. (An upload that turns out slow is begun again: see app.js.)
// - What is left has SHORT_SIDE pixels at the short side: more than four times what the usual
//   models look at (224), so that their own resizing still does the most of it.
// - Halved, and halved again, before the last step: no browser's filter skips pixels then.
// - Upright by its EXIF tag, which the smaller file does not have any more, and transparency on
//   white, as the service does it.

export const SHORT_SIDE = 1024;
const SLOW_S = 1.5;
const QUALITY = 0.9;
const CAPPED_MBIT_S = 10; // Browsers report no more than this, so it means nothing.

export function worthwhile(bytes, bytesPerSecond, mostBytes) {
  if (bytes > mostBytes) return true;
  if (bytesPerSecond > 0) return bytes / bytesPerSecond > SLOW_S;
  const connection = navigator.connection;
  if (!connection) return false;
  if (connection.saveData) return true;
  if (!(connection.downlink < CAPPED_MBIT_S)) return false;
  return (8 * bytes) / (1e6 * connection.downlink) > SLOW_S;
}

// The picture in `file` as a smaller JPEG; `file` itself where that is not smaller, or no picture.
export async function scaled(file, side = SHORT_SIDE) {
  let image;
  try {
    image = await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    return file; // The service says what is wrong with it.
  }
  const factor = side / Math.min(image.width, image.height);
  if (factor >= 1) return file;
  const [width, height] = [image.width, image.height].map((long) => Math.round(long * factor));
  let [w, h] = [image.width, image.height];
  while (w >= 2 * width && h >= 2 * height) {
    [w, h] = [Math.max(width, Math.round(w / 2)), Math.max(height, Math.round(h / 2))];
    image = drawn(image, w, h);
  }
  if (w !== width || h !== height) image = drawn(image, width, height);
  const smaller = await new Promise((done) => image.toBlob(done, "image/jpeg", QUALITY));
  return smaller && smaller.size < file.size ? smaller : file;
}

function drawn(image, width, height) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  const pen = canvas.getContext("2d");
  pen.fillStyle = "white";
  pen.fillRect(0, 0, width, height);
  pen.imageSmoothingEnabled = true;
  pen.imageSmoothingQuality = "high";
  pen.drawImage(image, 0, 0, width, height);
  image.close?.();
  return canvas;
}
