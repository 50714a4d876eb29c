#!/bin/sh
# How the images in this folder were made; see README.md. Usage: make.sh FOLDER, where picture.py has put its files.
set -e
cd "$1"
magick() { convert-im6.q16 "$@"; }
clean='-strip -define png:exclude-chunks=date,time,gAMA,cHRM,bKGD'
tiny='-sampling-factor 1x1 -quality 100 -strip'

# PNG: netpbm's pnmtopng and pamrgbatopng (libpng), ImageMagick where netpbm has no such kind.
for name in gray8 gray16 rgb8 rgb16 bilevel; do pnmtopng -force "$name.pnm" > "png_$name.png"; done
pamtopng rgba8.pam > png_rgba8.png
pamtopng rgba16.pam > png_rgba16.png
pamtopng gray_alpha8.pam > png_gray_alpha8.png
pamtopng gray_alpha16.pam > png_gray_alpha16.png
pnmtopng -interlace rgb16.pnm > png_interlaced16.png
pnmtopng -force -transparent '=rgb:03/fa/00' rgb8.pnm > png_transparent_colour.png
magick rgb8.pnm $clean PNG8:png_palette.png
magick rgba_cut.pam $clean PNG8:png_palette_alpha.png

# JPEG: libjpeg-turbo's cjpeg; CMYK by ImageMagick.
cjpeg -quality 100 -sample 1x1 -outfile jpeg_rgb.jpg rgb8.pnm
cjpeg -quality 100 -outfile jpeg_gray.jpg gray8.pnm
cjpeg -quality 90 -progressive -outfile jpeg_progressive.jpg rgb8.pnm
magick rgb8.pnm -colorspace CMYK $tiny jpeg_cmyk.jpg
# Turned so that EXIF turns them back.
n=1
for turn in '-rotate 0' '-flop' '-rotate 180' '-flip' '-transpose' '-rotate 270' '-transverse' '-rotate 90'; do
  magick rgb8.pnm $turn +repage $tiny "jpeg_orientation$n.jpg"
  exiftool -q -overwrite_original -n "-Orientation=$n" "jpeg_orientation$n.jpg"
  n=$((n + 1))
done

# TIFF: netpbm's pamtotiff and libtiff's tiffcp.
pamtotiff -truecolor rgb8.pnm -output=tiff_rgb8.tif
pamtotiff -truecolor rgb16.pnm -output=tiff_rgb16.tif
pamtotiff gray8.pnm -output=tiff_gray8.tif
pamtotiff gray16.pnm -output=tiff_gray16.tif
magick rgba16.pam -strip -compress LZW -define tiff:alpha=unassociated tiff_rgba16.tif
magick rgba8.pam -strip -compress LZW -define tiff:alpha=associated tiff_associated.tif
magick gray_alpha16.pam -strip -compress LZW -define tiff:alpha=unassociated tiff_gray_alpha16.tif
tiffcp -c lzw:2 -t -w 16 -l 16 tiff_rgb16.tif tiff_tiled_lzw.tif
tiffcp -p separate -c packbits tiff_rgb8.tif tiff_planar_packbits.tif
tiffcp -B -c zip:2 tiff_rgb16.tif tiff_bigendian_zip.tif
tiffcp -8 -c zip tiff_rgb16.tif tiff_bigtiff_zip.tif
tiffcp -c zstd tiff_rgb16.tif tiff_zstd.tif
magick bilevel.pnm -strip -compress Group4 tiff_bilevel_g4.tif
magick rgb8.pnm -strip -type Palette -compress None tiff_palette.tif
magick rgb8.pnm -strip -compress JPEG -quality 100 -sampling-factor 1x1 tiff_jpeg.tif
magick rgb8.pnm -strip -colorspace CMYK -compress LZW tiff_cmyk.tif
magick rgb8.pnm -strip -colorspace Lab -compress LZW tiff_lab.tif
magick rgb8.pnm -strip -define quantum:format=floating-point -depth 32 -compress LZW tiff_float.tif
tiffcp tiff_gray8.tif tiff_gray8.tif tiff_pages.tif
tiffcp -c none tiff_rgb8.tif tiff_orientation6.tif
tiffset -s 274 6 tiff_orientation6.tif

# WebP: libwebp's cwebp and img2webp.
cwebp -quiet -lossless -exact png_rgb8.png -o webp_rgb.webp
cwebp -quiet -lossless -exact png_rgba8.png -o webp_rgba.webp
cwebp -quiet -q 95 png_rgb8.png -o webp_lossy.webp
img2webp -lossless png_rgb8.png png_rgba8.png -o webp_animated.webp

# BMP: netpbm's ppmtobmp; with alpha and RLE by ImageMagick.
ppmtobmp -windows rgb8.pnm > bmp_palette.bmp
ppmtobmp -windows -bpp 24 rgb8.pnm > bmp_rgb.bmp
ppmtobmp -os2 gray8.pnm > bmp_gray_os2.bmp
ppmtobmp -windows bilevel.pnm > bmp_bilevel.bmp
magick rgba8.pam -strip BMP:bmp_rgba.bmp
magick rgb8.pnm -strip -type Palette -compress RLE BMP3:bmp_rle.bmp

magick rgb8.pnm gray8.pnm -strip gif_animated.gif

# Metadata: exiftool.
said='-Make=Häuser -Model=K -Artist=Ada -ExposureTime=1/60
  -GPSLatitude=47.5 -GPSLatitudeRef=N -XMP-dc:Title=Hut -XMP-tiff:Orientation=6 -Orientation=6
  -ExifImageWidth=13 -ExifImageHeight=19 -XResolution=300 -YResolution=150 -ResolutionUnit=2'
for name in jpeg_rgb.jpg png_rgb16.png tiff_rgb16.tif webp_rgb.webp; do
  copy=$(echo "$name" | sed 's/_.*\./_metadata./')
  cp "$name" "$copy"
  exiftool -q -q -overwrite_original -n $said '-DateTimeOriginal=2020:02:02 02:02:02' "-icc_profile<=rgb.icc" "$copy"
done
exiftool -q -overwrite_original '-Comment=a comment' '-IPTC:Caption-Abstract=a caption' '-ThumbnailImage<=jpeg_gray.jpg' \
  -JFIF:XResolution=300 -JFIF:YResolution=150 jpeg_metadata.jpg
exiftool -q -overwrite_original -PNG:Title=Hut '-PNG:Description=Hütte' -PNG:PixelsPerUnitX=11811 \
  -PNG:PixelsPerUnitY=5906 '-PNG:PixelUnits#=1' png_metadata.png
rm -f ./*.pnm ./*.pam rgb.icc
