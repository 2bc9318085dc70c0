// Makes a large photograph smaller before it is sent, where the connection is slow.
//
// Rules:
// - It is scaled if sending it as it is would take more than SLOW_S, by the rate that was measured
//   on uploads of this visit; before there was one, if the browser calls the connection slower than
//   4G or was told to save data (the rate that it names is a guess, and one of downloads); or if it
//   is more than the service takes. On a fast link it goes as it is. An upload that turns out slow
//   is begun again, scaled: see app.js.
// - It is halved until one more would leave less than SHORT_SIDE at the short side, which is more
//   than six times what the usual models look at (224): their own resizing does the most of it. So
//   the 12 megapixels of most phones are halved once, 48 twice.
// - Halving is the mean of four pixels, in every browser. So no filter skips any, and it is what
//   the service's JPEG decoder does to a large photograph anyway.
// - Upright by its EXIF tag, which the smaller file does not have any more, and transparency on
//   white, as the service does it.

export const SHORT_SIDE = 1500;
const SLOW_S = 1.5;
const QUALITY = 0.95;

export function worthwhile(bytes, bytesPerSecond, mostBytes) {
  if (bytes > mostBytes) return true;
  if (bytesPerSecond > 0) return bytes / bytesPerSecond > SLOW_S;
  const connection = navigator.connection; // Not every browser tells.
  if (!connection) return false;
  return connection.saveData || connection.effectiveType !== "4g";
}

// The picture in `file` as a smaller JPEG; `file` itself where that is not smaller, or no picture.
export async function scaled(file) {
  let image;
  try {
    image = await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    return file; // The service says what is wrong with it.
  }
  const whole = image;
  while (Math.min(image.width, image.height) >= 2 * SHORT_SIDE) image = halved(image);
  whole.close();
  if (image === whole) return file;
  const smaller = await new Promise((done) => image.toBlob(done, "image/jpeg", QUALITY));
  return smaller && smaller.size < file.size ? smaller : file;
}

function halved(image) {
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(image.width / 2);
  canvas.height = Math.round(image.height / 2);
  const pen = canvas.getContext("2d");
  pen.fillStyle = "white";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.imageSmoothingQuality = "high";
  pen.drawImage(image, 0, 0, canvas.width, canvas.height);
  return canvas;
}
